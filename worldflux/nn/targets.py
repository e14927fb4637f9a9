"""Target networks as exponential moving averages."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


@torch.no_grad()
def lerp_targets_(targets: Iterable[Tensor], online: Iterable[Tensor], tau: float) -> None:
    """`target <- target + tau (online - target)`, in place, one call for tensors of any shape."""
    torch._foreach_lerp_(list(targets), list(online), tau)
