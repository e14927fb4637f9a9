"""The type that networks compute in; weights, distributions, returns and losses stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch

T = TypeVar("T")

# Name of a setting -> what networks compute in; None: float32, as they are.
COMPUTE_TYPES = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def computing_in(
    dtype: torch.dtype | None, device: torch.device
) -> AbstractContextManager[torch.autocast | None]:
    """Networks compute in `dtype` within the block; in what was chosen already, if anything was."""
    if dtype is None or torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, dtype)


def steps_computing_in(
    dtype: torch.dtype | None, device: torch.device, steps: Iterator[T]
) -> Iterator[T]:
    """What `steps` yields, each computed in `dtype`; not so while the caller is at work."""
    end = object()
    while True:
        with computing_in(dtype, device):
            step = next(steps, end)
        if step is end:
            return
        yield step  # type: ignore[misc]
