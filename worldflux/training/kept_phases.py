"""An update is all or nothing: what its earlier phases changed can be put back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldflux.core.learning import Phase


class KeptPhases:
    """Copies of the weights and optimiser states that these phases change.

    A family of one phase keeps nothing: its only step comes after every check. The copies cost
    about as much memory traffic as one optimiser step.
    """

    def __init__(self, phases: list[Phase]) -> None:
        self.phases = phases
        self._copies: list[Tensor] = []
        self._groups: list[list[dict[str, Any]]] = []

    @torch.no_grad()
    def keep(self) -> None:
        """Copy what stands now."""
        live = self._live()
        if [t.shape for t in live] != [t.shape for t in self._copies]:
            self._copies = [torch.empty_like(tensor) for tensor in live]
        _copy(self._copies, live)
        self._groups = [[_settings(g) for g in p.optimizer.param_groups] for p in self.phases]

    @torch.no_grad()
    def put_back(self) -> None:
        """Make everything as it was at the last `keep`."""
        if len(self._live()) != len(self._copies):  # the optimisers had not stepped yet
            for phase in self.phases:
                phase.optimizer.state.clear()
        _copy(self._live(), self._copies)
        for phase, groups in zip(self.phases, self._groups, strict=True):
            for group, kept in zip(phase.optimizer.param_groups, groups, strict=True):
                group.update(kept)

    def _live(self) -> list[Tensor]:
        tensors: list[Tensor] = []
        for phase in self.phases:
            tensors += [parameter.detach() for parameter in phase.parameters]
            for state in phase.optimizer.state.values():
                tensors += [value for value in state.values() if isinstance(value, Tensor)]
        return tensors


def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    for device in {tensor.device for tensor in to}:  # counters may stand on the CPU
        pairs = [(a, b) for a, b in zip(to, source, strict=True) if a.device == device]
        torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}
