"""The running scale that keeps Q values of order one in TD-MPC2's policy loss."""

from __future__ import annotations

import torch
from torch import Tensor


def percentile_range(x: Tensor, low: float = 5.0, high: float = 95.0) -> Tensor:
    """Distance [] between two percentiles of `x` [B], linearly interpolated."""
    ordered = torch.sort(x).values
    last = len(ordered) - 1

    def percentile(p: float) -> Tensor:
        position = p * last / 100
        floor = int(position)
        weight = position - floor
        return ordered[floor] * (1 - weight) + ordered[min(floor + 1, last)] * weight

    return percentile(high) - percentile(low)


def running_scale(scale: Tensor, x: Tensor, tau: float) -> Tensor:
    """One step of the scale: `S + tau (max(p95 - p5, 1) - S)`.

    Args:
        scale: S, any shape of one element.
        x: values [B].
        tau: step size.

    Returns:
        The new S, in the shape of `scale`; S >= 1 stays true.
    """
    return torch.lerp(scale, percentile_range(x).clamp(min=1.0), tau)
