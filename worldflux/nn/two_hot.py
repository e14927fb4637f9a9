"""Scalars as two-hot distributions over bins in symlog space (TD-MPC2, Hansen et al. 2024, 3.1).

Shape legend: K equally spaced bins; `...` any leading axes. The mean is taken in symlog space and
only then mapped back, which sets this two-hot apart from DreamerV3's (`symexp_twohot`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.nn.scalars import symexp, symlog


@dataclass(frozen=True)
class SymlogBins:
    """K >= 2 equally spaced bins from `low` to `high` in symlog space."""

    low: float
    high: float
    num: int

    def values(self, device: torch.device | None = None) -> Tensor:
        """The bins [K]."""
        return torch.linspace(self.low, self.high, self.num, device=device)

    def position(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lower bin's index (int64) and the weight in [0, 1) of the bin above it, each [...].

        `symlog(x)` is clamped to the bins' range. At the highest bin the weight above is 0, so
        that the index above may wrap around.
        """
        y = symlog(x).clamp(self.low, self.high)
        position = (y - self.low) / ((self.high - self.low) / (self.num - 1))
        lower = torch.floor(position)
        return lower.long(), position - lower


def two_hot(x: Tensor, bins: SymlogBins) -> Tensor:
    """The two-hot target of scalars: [...] -> [..., K], each row summing to 1."""
    lower, weight = bins.position(x)
    target = torch.zeros(*x.shape, bins.num, dtype=x.dtype, device=x.device)
    target.scatter_(-1, lower.unsqueeze(-1), (1 - weight).unsqueeze(-1))
    return target.scatter_add_(-1, ((lower + 1) % bins.num).unsqueeze(-1), weight.unsqueeze(-1))


def two_hot_mean(logits: Tensor, bin_values: Tensor) -> Tensor:
    """`symexp(softmax(logits) . bins)`, the scalar meant by logits: [..., K], [K] -> [...].

    The result has the precision of `bin_values`, under autocast too.
    """
    probabilities = torch.softmax(logits, dim=-1, dtype=bin_values.dtype)
    # A matmul under autocast would be rounded to 8 bits ("meta" has no autocast to ask for).
    if not logits.is_meta and torch.is_autocast_enabled(logits.device.type):
        return symexp((probabilities * bin_values).sum(-1))
    return symexp(probabilities @ bin_values)


def two_hot_cross_entropy(logits: Tensor, x: Tensor, bins: SymlogBins) -> Tensor:
    """Cross entropy in nats between the two-hot targets of `x` and `logits`.

    Args:
        logits: [..., K].
        x: target scalars, broadcastable to the leading axes of `logits`.
        bins: the bins that the logits speak of.

    Returns:
        [...]. Only the two bins with weight are read, so no [..., K] target is built.
    """
    lower, weight = bins.position(x)
    lower = lower.clamp(0, bins.num - 1)  # NaN has no bin: its weight, and so the loss, is NaN
    pair = torch.stack([lower, (lower + 1) % bins.num], dim=-1).expand(*logits.shape[:-1], 2)
    weights = torch.stack([1 - weight, weight], dim=-1)
    log_probs = torch.log_softmax(logits, dim=-1, dtype=weights.dtype)
    return -(log_probs.gather(-1, pair) * weights).sum(-1)
