"""Output distributions of the DreamerV3 heads. All work in float32."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.nn.categorical import entropy, one_hot, pick, uniform_noise, unimix_probs
from worldflux.nn.scalars import symexp, symlog


class ScalarPrediction(Protocol):
    """What a reward or value head returns: an expected value, and one loss for each target."""

    def pred(self) -> Tensor: ...

    def loss(self, *targets: Tensor) -> tuple[Tensor, ...]: ...


class MeanSquared:
    """A point prediction `[...]`, compared by squared error, in symlog space where asked.

    The loss has no factor 1/2 (the official code has none; the paper writes one).
    """

    def __init__(self, output: Tensor, use_symlog: bool) -> None:
        self.output = output.float()
        self.use_symlog = use_symlog

    def pred(self) -> Tensor:
        """The prediction in the units of the target."""
        return symexp(self.output) if self.use_symlog else self.output

    def loss(self, *targets: Tensor) -> tuple[Tensor, ...]:
        """Squared error for each target, element by element; no gradient reaches a target."""
        return tuple(self._squared_error(target.detach().float()) for target in targets)

    def _squared_error(self, target: Tensor) -> Tensor:
        return (self.output - (symlog(target) if self.use_symlog else target)).square()


def bernoulli_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood of a target in [0, 1], soft targets allowed: `[...] -> [...]`."""
    return F.binary_cross_entropy_with_logits(
        logit.float(), target.detach().float(), reduction="none"
    )


class BoundedNormal:
    """Normal(tanh(m), s), s = (high - low) * sigmoid(std_raw + 2) + low, independent per dimension.

    Samples are not squashed: the environment clips them, the replay keeps what was drawn.
    Shapes: raw `[..., A]`; log-probability and entropy sum over A to `[...]`.
    """

    def __init__(
        self, mean_raw: Tensor, std_raw: Tensor, std_low: float = 0.1, std_high: float = 1.0
    ) -> None:
        self.mean = torch.tanh(mean_raw.float())
        self.std = (std_high - std_low) * torch.sigmoid(std_raw.float() + 2.0) + std_low

    def mode(self) -> Tensor:
        """The mean `[..., A]`."""
        return self.mean

    def sample(self) -> Tensor:
        """A draw `[..., A]` without gradient, from torch's global generator."""
        return torch.normal(self.mean.detach(), self.std.detach())

    def log_prob(self, action: Tensor) -> Tensor:
        """Log density `[...]` of actions `[..., A]`."""
        scaled = (action - self.mean) / self.std
        per_dim = -0.5 * scaled.square() - self.std.log() - 0.5 * math.log(2 * math.pi)
        return per_dim.sum(-1)

    def entropy(self) -> Tensor:
        """Differential entropy `[...]`, in nats, summed over the action."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


class OneHotCategorical:
    """A discrete action: one-hot float vectors `[..., A]` in and out.

    `unimix` mixes in that share of a uniform distribution; the current official policy has none.
    """

    def __init__(self, logits: Tensor, unimix: float = 0.0) -> None:
        logits = logits.float()
        self.log_probs = unimix_probs(logits, unimix).log() if unimix else logits.log_softmax(-1)

    def mode(self) -> Tensor:
        """The most likely choice as one-hot rows `[..., A]`."""
        return self._one_hot(None)

    def sample(self) -> Tensor:
        """A draw `[..., A]` without gradient, from torch's global generator."""
        shape = self.log_probs.shape[:-1]
        return self._one_hot(uniform_noise(*shape, device=self.log_probs.device))

    def log_prob(self, action: Tensor) -> Tensor:
        """Log probability `[...]` of one-hot rows `[..., A]`."""
        return (action * self.log_probs).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy `[...]`, in nats."""
        return entropy(self.log_probs)

    def _one_hot(self, noise: Tensor | None) -> Tensor:
        return one_hot(pick(self.log_probs.exp(), noise), self.log_probs.shape[-1])
