"""The heads of DreamerV3: what reads features `[..., F]` and answers with a distribution.

Legend: F features (deter and flattened stoch), A action.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldflux.models.dreamerv3.maths import (
    BoundedNormal,
    MeanSquared,
    OneHotCategorical,
    ScalarPrediction,
    SymexpTwohot,
    symexp_bins,
)
from worldflux.models.dreamerv3.networks import linear, mlp
from worldflux.models.dreamerv3.spaces import ActionPart, module_name


class ScalarHead(nn.Module):
    """Reward or value: Dense layers, then a two-hot categorical (or one squared-error output)."""

    bins: Tensor

    def __init__(
        self,
        in_width: int,
        width: int,
        num_layers: int,
        *,
        outscale: float,
        num_bins: int,
        bin_range: tuple[float, float],
        use_twohot: bool,
        use_symlog: bool,
    ) -> None:
        super().__init__()
        self.mlp = mlp(in_width, width, num_layers)
        self.use_twohot, self.use_symlog = use_twohot, use_symlog
        self.out = linear(width, num_bins if use_twohot else 1, outscale)
        low, high = bin_range
        bins = (
            symexp_bins(num_bins, low, high) if use_symlog else torch.linspace(*bin_range, num_bins)
        )
        # Derived from the configuration, so it has no place in a checkpoint.
        self.register_buffer("bins", bins, persistent=False)

    def forward(self, features: Tensor) -> ScalarPrediction:
        """The predicted distribution over `[...]` for features `[..., F]`."""
        out = self.out(self.mlp(features))
        if self.use_twohot:
            return SymexpTwohot(out, self.bins)
        return MeanSquared(out.squeeze(-1), self.use_symlog)


class ContinueHead(nn.Module):
    """Logit `[...]` of the probability that the episode goes on, for features `[..., F]`."""

    def __init__(self, in_width: int, width: int, num_layers: int) -> None:
        super().__init__()
        self.mlp = mlp(in_width, width, num_layers)
        self.out = linear(width, 1)

    def forward(self, features: Tensor) -> Tensor:
        return self.out(self.mlp(features)).squeeze(-1)


class ActionDistribution:
    """Independent distributions of the action parts, over one vector `[..., A]`."""

    def __init__(
        self,
        parts: Sequence[ActionPart],
        distributions: Sequence[BoundedNormal | OneHotCategorical],
    ) -> None:
        self.parts, self.distributions = parts, distributions

    def mode(self) -> Tensor:
        """The most likely action `[..., A]`."""
        return torch.cat([d.mode() for d in self.distributions], -1)

    def sample(self) -> Tensor:
        """A drawn action `[..., A]`."""
        return torch.cat([d.sample() for d in self.distributions], -1)

    def log_prob(self, action: Tensor) -> Tensor:
        """Log-probability `[...]`, summed over parts."""
        pairs = zip(self.parts, self.distributions, strict=True)
        return torch.stack([d.log_prob(action[..., p.columns]) for p, d in pairs]).sum(0)

    def entropy(self) -> Tensor:
        """Entropy `[...]`, summed over parts."""
        return torch.stack([d.entropy() for d in self.distributions]).sum(0)


class Policy(nn.Module):
    """The actor: Dense layers, then for each action part one or two linear outputs."""

    def __init__(
        self,
        in_width: int,
        width: int,
        num_layers: int,
        parts: Sequence[ActionPart],
        *,
        outscale: float,
        unimix: float,
        std_range: tuple[float, float],
    ) -> None:
        super().__init__()
        self.mlp = mlp(in_width, width, num_layers)
        self.parts, self.unimix, self.std_range = tuple(parts), unimix, std_range
        self.heads = nn.ModuleDict(
            {
                module_name(part.name): nn.ModuleDict(
                    {
                        out: linear(width, part.width, outscale)
                        for out in (("mean", "std") if part.kind == "continuous" else ("logits",))
                    }
                )
                for part in parts
            }
        )

    def forward(self, features: Tensor) -> ActionDistribution:
        hidden = self.mlp(features)
        return ActionDistribution(self.parts, [self._part(p, hidden) for p in self.parts])

    def _part(self, part: ActionPart, hidden: Tensor) -> BoundedNormal | OneHotCategorical:
        head = self.heads[module_name(part.name)]
        assert isinstance(head, nn.ModuleDict)
        if part.kind == "discrete":
            return OneHotCategorical(head["logits"](hidden), self.unimix)
        return BoundedNormal(head["mean"](hidden), head["std"](hidden), *self.std_range)
