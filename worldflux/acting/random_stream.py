"""An agent's own random numbers: torch's generators belong to the whole process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from worldflux.core.world_model import WorldModel
from worldflux.evaluation.episodes import cuda_devices

_GENERATORS = threading.Lock()


@contextmanager
def generators_kept(devices: Sequence[int] = ()) -> Iterator[None]:
    """Leave the generators as they were, while no agent draws from them."""
    with _GENERATORS, torch.random.fork_rng(devices=devices):
        yield


class RandomStream:
    """What a model draws within `drawing`, as after `torch.manual_seed(seed)`.

    The generators of the process are left as they were. Agents of several threads draw in turn;
    other code that draws from them at the same moment takes numbers of theirs.
    """

    def __init__(self, seed: int, model: WorldModel) -> None:
        self._devices = cuda_devices(model)
        with generators_kept(self._devices):
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
