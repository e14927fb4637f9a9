"""What a loss needs of the whole batch when each shard of it is learned from apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
_GATHER: ContextVar[Gather | None] = ContextVar("gather", default=None)


def across_shards(values: Tensor) -> Tensor:
    """`values` `[N, ...]` of every shard of the batch, end to end in the order of the shards.

    For statistics of the whole batch, such as percentiles, which no mean over shards gives. Every
    shard calls it equally often, with equal shapes. No gradient passes. Where a batch is not
    divided, these are the values themselves.
    """
    # A compiled function is of a run without shards; the compiler knows no context variables.
    gather = None if torch.compiler.is_compiling() else _GATHER.get()
    return values if gather is None else gather(values.detach())


@contextmanager
def gathering(gather: Gather) -> Iterator[None]:
    """Within the block, and in this thread, `across_shards` calls `gather`."""
    token = _GATHER.set(gather)
    try:
        yield
    finally:
        _GATHER.reset(token)
