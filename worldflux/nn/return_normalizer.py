"""Running percentile range of returns (DreamerV3, Nature 2025, eq. 7)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ReturnNormalizer(nn.Module):
    """An exponential average of the 5th and 95th percentile of imagined returns.

    `updated(returns)` computes the next percentiles without storing them, so that a loss can use
    them and stay free of side effects; `commit` stores them. Both start at 0, without debiasing.

    Args:
        rate: weight of a new batch in the average.
        low, high: the percentiles, in percent.
        limit: smallest scale; returns in a range below it are not blown up.
    """

    low_value: Tensor
    high_value: Tensor

    def __init__(
        self, rate: float = 0.01, low: float = 5.0, high: float = 95.0, limit: float = 1.0
    ) -> None:
        super().__init__()
        self.rate, self.low, self.high, self.limit = rate, low, high, limit
        self.register_buffer("low_value", torch.zeros(()))
        self.register_buffer("high_value", torch.zeros(()))

    def updated(self, returns: Tensor) -> Tensor:
        """The averages `[2]` (low, high) after taking in `returns` of any shape."""
        levels = torch.tensor(
            [self.low / 100, self.high / 100], dtype=torch.float32, device=returns.device
        )
        fresh = torch.quantile(returns.detach().float().flatten(), levels)
        kept = torch.stack([self.low_value, self.high_value])
        return (1 - self.rate) * kept + self.rate * fresh

    def scale(self, percentiles: Tensor) -> Tensor:
        """max(limit, high - low) of `percentiles` `[2]`, a scalar."""
        return (percentiles[1] - percentiles[0]).clamp(min=self.limit)

    def commit(self, percentiles: Tensor) -> None:
        """Store the averages `[2]` that `updated` returned."""
        self.low_value.copy_(percentiles[0])
        self.high_value.copy_(percentiles[1])
