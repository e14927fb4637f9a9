"""`training.threads`: the threads that are set, or as many as pay for a model of its size."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from worldflux.core.learning import learned_count
from worldflux.core.world_model import WorldModel

from .config import TrainingConfig
from .device import resolve_device

# Products of a batch with the weights for which one thread is enough. A second one made an update
# of 4e7 (the demo's) 9 % faster for twice the processor's time, one of 2e8 25 %, one of 5e9 43 %.
_FOR_ONE = 4e7


def threads_of(config: TrainingConfig, model: WorldModel, recorded: Any = None) -> int:
    """How many threads a run computes with on the CPU.

    Threads wait for the slowest one of them, many times in an update: few are quicker where a model
    is small, and far quicker where other programs keep the cores busy. The square root of the work
    decides, and of more than two cores one stays free. No run takes more threads than there are
    cores, whatever is set.

    Args:
        recorded: the number with which a resumed run began; it takes as many again, where there
            are so many.
    """
    if config.threads is not None:
        return min(config.threads, os.cpu_count() or config.threads)
    most = torch.get_num_threads()  # the cores, or OMP_NUM_THREADS
    if isinstance(recorded, int):
        return max(1, min(recorded, most))
    if resolve_device(config.device).type != "cpu" or model.config.is_image:
        return most
    resolved = config.resolve(model.config)
    work = learned_count(model) * resolved.batch_size * resolved.sequence_length
    return max(1, min(round(math.sqrt(work / _FOR_ONE)), most - (most > 2)))


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Within the block torch has that many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
