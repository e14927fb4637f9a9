"""AdamW whose parameter groups are clipped each by its own gradient norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from worldflux.nn.laprop import warmup_factor


class ClippedAdam(torch.optim.AdamW):
    """AdamW with two more keys in each group: `max_norm` and `warmup`.

    Before a step, the gradients of a group are scaled down to a common norm of `max_norm`. The
    learning rate of the n-th update is lr * min(1, (n - 1) / warmup), as in `LaProp`. This lets
    one backward pass serve several learners with their own rates and clipping thresholds.
    """

    def __init__(self, groups: list[dict[str, Any]], *, weight_decay: float = 0.0) -> None:
        super().__init__(groups, weight_decay=weight_decay)
        for group in self.param_groups:
            group.setdefault("max_norm", None)
            group.setdefault("warmup", 0)
            group.setdefault("updates", 0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Clip, then one AdamW update."""
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["updates"] += 1
            if group["max_norm"] is not None:
                torch.nn.utils.clip_grad_norm_(group["params"], group["max_norm"])
            group["lr"] *= warmup_factor(group["updates"], group["warmup"])
        try:
            return super().step(closure)
        finally:
            # The learning rate itself stays what a scheduler or a checkpoint put there.
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate
