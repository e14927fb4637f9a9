"""Scalars predicted as a two-hot categorical over exponentially spaced bins.

Source: DreamerV3 (Nature 2025), "Symexp twohot loss" (eq. 9-10).
"""

from __future__ import annotations

import torch
from torch import Tensor

from worldflux.nn.scalars import symexp


def symexp_bins(num_bins: int = 255, low: float = -20.0, high: float = 20.0) -> Tensor:
    """Bin values `[num_bins]`: symexp of evenly spaced points from `low` to `high`.

    For an odd number of bins and symmetric bounds the positive half mirrors the negative half bit
    for bit; otherwise rounding would make a uniform prediction differ from 0.
    """
    if num_bins % 2 == 0 or low != -high:
        return symexp(torch.linspace(low, high, num_bins))
    # The grid is rounded where the official code rounds it (a reciprocal in float32, one fused
    # multiply-add), because outer bins near 1e8 carry a rounding of the grid into every value.
    steps = num_bins // 2
    reciprocal = torch.tensor(1 / steps, dtype=torch.float32).double()
    remaining = (1 - torch.arange(steps + 1, dtype=torch.float64) * reciprocal).float()
    remaining[-1] = 0.0
    half = symexp(low * remaining)
    return torch.cat([half, -half[:-1].flip(0)])


class SymexpTwohot:
    """The distribution that `logits` `[..., n]` put on `bins` `[n]` (ascending)."""

    def __init__(self, logits: Tensor, bins: Tensor) -> None:
        self.logits, self.bins = logits.float(), bins

    def pred(self) -> Tensor:
        """Expected value `[...]`.

        The mirrored halves are added pairwise before they are summed, so that equal probabilities
        give exactly 0: the outer bins are near +-5e8, where a plain sum leaves an error of 0.3.
        For the same reason this is a softmax, not the exponential of a log-softmax, whose rounding
        is five times larger.
        """
        weighted = torch.softmax(self.logits, -1) * self.bins
        return weighted.sum(-1) if len(self.bins) % 2 == 0 else _mirrored_sum(weighted)

    def loss(self, *targets: Tensor) -> tuple[Tensor, ...]:
        """Cross entropy `[...]` with the two-hot encoding of each target `[...]`.

        The weights are linear between the neighbouring bins in raw value space; a target outside
        the range is put on the end bin. No gradient reaches a target. Several targets at once
        share one log-softmax and one gather over all bins.
        """
        stacked = torch.stack([target.detach().float() for target in targets], -1)
        below, above, weight_above = two_hot(stacked, self.bins)
        log_probs = torch.log_softmax(self.logits, -1)
        picked = log_probs.gather(-1, torch.cat([below, above], -1))
        weights = torch.cat([1 - weight_above, weight_above], -1)
        losses = -(picked * weights).unflatten(-1, (2, len(targets))).sum(-2)
        return losses.unbind(-1)


def _mirrored_sum(weighted: Tensor) -> Tensor:
    """Sum over the last axis, from the middle outwards in pairs.

    Terms near 1e6 cancel to values near 0, so the order of a float32 sum shows in the targets made
    from it. On a CPU this is the order of the recorded official numbers; on a GPU, where a kernel
    for each term would cost more than the sum, only the pairs are kept.
    """
    middle = weighted.shape[-1] // 2
    if weighted.device.type != "cpu":
        pairs = weighted[..., :middle].flip(-1) + weighted[..., middle + 1 :]
        return weighted[..., middle] + pairs.sum(-1)
    columns = weighted.movedim(-1, 0).contiguous()
    total = columns[middle - 1] + columns[middle + 1]
    for i in range(2, middle + 1):
        total = total + (columns[middle - i] + columns[middle + i])
    return columns[middle] + total


def two_hot(target: Tensor, bins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbouring bins of `target` `[...]`: (index below, index above, weight of the upper one).

    A target on a bin value gives that bin the whole weight. Outside the range both indices are the
    end bin. NaN has no bin: its weight is NaN, and so is a loss made of it.
    """
    rank = torch.searchsorted(bins, target.contiguous(), right=True)
    below = (rank - 1).clamp(min=0)
    above = rank.clamp(max=bins.shape[0] - 1)
    distance_below = (target - bins[below]).abs()
    distance_above = (bins[above] - target).abs()
    # Where the two coincide any split is the same one; it must only not be 0 / 0.
    total = torch.where(below == above, 1.0, distance_below + distance_above)
    weight = torch.where(below == above, 0.0, distance_below / total)
    return below, above, torch.where(target.isnan(), target, weight)
