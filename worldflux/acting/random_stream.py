"""An agent's own random numbers: torch's generators belong to the whole process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from worldflux.core.world_model import WorldModel
from worldflux.evaluation.episodes import cuda_devices

_GENERATORS = threading.Lock()


class RandomStream:
    """What a model draws within `drawing`, as after `torch.manual_seed(seed)`.

    The generators of the process are left as they were. Agents of several threads draw in turn.
    """

    def __init__(self, seed: int, model: WorldModel) -> None:
        self._devices = cuda_devices(model)
        with _GENERATORS, torch.random.fork_rng(devices=self._devices):
            torch.manual_seed(seed)
            self._states = self._present()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        with _GENERATORS:
            before = self._present()
            self._set(self._states)
            try:
                yield
            finally:
                self._states = self._present()
                self._set(before)

    def _present(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self._devices)]

    def _set(self, states: list[torch.Tensor]) -> None:
        torch.set_rng_state(states[0])
        for device, state in zip(self._devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, device)
