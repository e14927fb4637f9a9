"""`State`: a named bundle of latent tensors with one shared batch axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from worldflux.errors import StateError


@dataclass
class State:
    """Latent state of a model.

    `tensors` hold `[B, ...]` each: Dreamer `deter` [B, D], `stoch` [B, S, C], `logits` [B, S, C];
    TD-MPC2 `latent` [B, L]. `meta` carries plain values, never tensors.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def get(self, key: str, default: Tensor | None = None) -> Tensor | None:
        """The tensor of that name, or `default`."""
        return self.tensors.get(key, default)

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.tensors:
            raise StateError(f"the state has no {key!r}; it has {sorted(self.tensors)}")
        return self.tensors[key]

    @property
    def batch_size(self) -> int:
        """Length of the leading axis. Raises StateError for an empty state."""
        return self._first().shape[0]

    @property
    def device(self) -> torch.device:
        """Device of the tensors. Raises StateError for an empty state."""
        return self._first().device

    def to(self, device: torch.device | str) -> State:
        """A copy with every tensor on `device`."""
        return self._mapped(lambda tensor: tensor.to(device))

    def detach(self) -> State:
        """A copy cut off from the graph."""
        return self._mapped(Tensor.detach)

    def clone(self) -> State:
        """A copy that shares no memory."""
        return self._mapped(Tensor.clone)

    def validate(self) -> None:
        """Check that there are tensors, on one device, with one batch size.

        Raises:
            StateError: naming the tensors that disagree.
        """
        self._first()
        for name, tensor in self.tensors.items():
            if not isinstance(tensor, Tensor):
                raise StateError(f"state[{name!r}] is a {type(tensor).__name__}, not a tensor")
            if tensor.dim() == 0:
                raise StateError(f"state[{name!r}] has no batch axis")
        sizes = {name: tensor.shape[0] for name, tensor in self.tensors.items()}
        if len(set(sizes.values())) > 1:
            raise StateError(f"batch sizes of the state disagree: {sizes}")
        devices = {name: str(tensor.device) for name, tensor in self.tensors.items()}
        if len(set(devices.values())) > 1:
            raise StateError(f"devices of the state disagree: {devices}")

    def _first(self) -> Tensor:
        for tensor in self.tensors.values():
            return tensor
        raise StateError("the state holds no tensors")

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> State:
        return State({name: change(t) for name, t in self.tensors.items()}, dict(self.meta))
