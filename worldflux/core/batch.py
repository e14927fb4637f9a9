"""`Batch`: sequences for training, in the one time alignment of the project.

Index t holds the observation o_t, the action a_t taken after seeing it, and the reward and flags
that came with o_t; so `rewards[:, t]` belongs to `actions[:, t - 1]`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from worldflux.errors import ConfigurationError, ShapeMismatchError, did_you_mean

DEMONSTRATION = "demonstration"
"""Of `Batch.extras`: the weight `[B, T]` of imitating each action; missing where none is."""


@dataclass
class Batch:
    """Sequences `[B, T, ...]`; `obs` is a tensor or a dict of named tensors.

    `terminations` marks a true end (no bootstrap), `is_last` any end of an episode (a time limit
    too), `is_first` its first observation. `extras` holds further `[B, T, ...]` columns.
    Built by hand, obs, actions, rewards and terminations are enough: the first step is then
    `is_first`, and episodes end where they terminate.
    """

    obs: Tensor | dict[str, Tensor]
    actions: Tensor
    rewards: Tensor
    terminations: Tensor
    is_first: Tensor | None = None
    is_last: Tensor | None = None
    extras: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        terminations = self.terminations.bool()
        if self.is_last is None:
            self.is_last = terminations.clone()
        if self.is_first is None:
            first = torch.zeros_like(terminations)
            if terminations.dim() >= 2 and terminations.shape[1] > 0:
                first[:, 0] = True
                first[:, 1:] = self.is_last[:, :-1].bool()
            self.is_first = first

    @property
    def firsts(self) -> Tensor:
        """`is_first` as a tensor `[B, T]` (it is filled in on construction)."""
        assert self.is_first is not None
        return self.is_first

    @property
    def lasts(self) -> Tensor:
        """`is_last` as a tensor `[B, T]` (it is filled in on construction)."""
        assert self.is_last is not None
        return self.is_last

    @property
    def batch_size(self) -> int:
        """B."""
        return self.rewards.shape[0]

    @property
    def length(self) -> int:
        """T."""
        return self.rewards.shape[1]

    @property
    def device(self) -> torch.device:
        """Device of the tensors."""
        return self.rewards.device

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> Batch:
        """A batch from its fields by name; an unknown key is an error.

        Raises:
            ConfigurationError: for an unknown key, or one of the four that are needed missing.
        """
        names = [f.name for f in fields(cls)]
        for name in d:
            if name not in names:
                raise ConfigurationError(
                    f"a batch has no field {name!r}", hint=did_you_mean(name, names)
                )
        missing = {"obs", "actions", "rewards", "terminations"} - d.keys()
        if missing:
            raise ConfigurationError(f"a batch needs also {sorted(missing)}")
        return cls(**d)

    def to(self, device: torch.device | str) -> Batch:
        """A copy with every tensor on `device`."""
        return self._mapped(lambda tensor: tensor.to(device, non_blocking=True))

    def detach(self) -> Batch:
        """A copy cut off from the graph."""
        return self._mapped(Tensor.detach)

    def validate(self) -> None:
        """Check that every tensor starts with the same [B, T] and is on one device.

        Raises:
            ShapeMismatchError: naming the tensor, the shape expected and the one given.
        """
        if self.rewards.dim() != 2:
            raise ShapeMismatchError(
                f"batch.rewards has shape {tuple(self.rewards.shape)}, expected [B, T]"
            )
        leading = tuple(self.rewards.shape)
        for name, tensor in self.named_tensors():
            if tuple(tensor.shape[:2]) != leading:
                raise ShapeMismatchError(
                    f"batch.{name} has shape {tuple(tensor.shape)}, expected {leading} first"
                )
            if tensor.device != self.rewards.device:
                raise ShapeMismatchError(f"batch.{name} is on {tensor.device}, not {self.device}")
        if self.terminations.bool().logical_and(~self.lasts.bool()).any():
            raise ShapeMismatchError("batch.terminations marks a step that is_last does not")

    def rows(self, start: int, stop: int) -> Batch:
        """The sequences start..stop of the batch axis (used to accumulate gradients)."""
        return self._mapped(lambda tensor: tensor[start:stop])

    def copy(self) -> Batch:
        """A copy with its own memory."""
        return self._mapped(Tensor.clone)

    @classmethod
    def joined(cls, parts: list[Batch]) -> Batch:
        """The sequences of several batches with the same columns, end to end."""

        def join(values: list[Any]) -> Any:
            if isinstance(values[0], dict):
                return {name: join([value[name] for value in values]) for name in values[0]}
            return torch.cat(values)

        return cls(**{name: join([vars(part)[name] for part in parts]) for name in vars(parts[0])})

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor `[B, T, ...]` by its field's name; those of a dict as "obs.NAME"."""
        for name, value in vars(self).items():
            if isinstance(value, dict):
                yield from ((f"{name}.{key}", tensor) for key, tensor in value.items())
            else:
                yield name, value

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def changed(value: Any) -> Any:
            if isinstance(value, dict):
                return {name: change(tensor) for name, tensor in value.items()}
            return change(value)

        return Batch(**{name: changed(value) for name, value in vars(self).items()})


def require_batch(given: object) -> None:
    """Raises ConfigurationError for anything but a Batch."""
    if not isinstance(given, Batch):
        raise ConfigurationError(
            f"loss takes a worldflux.Batch, not a {type(given).__name__}",
            hint="buffer.sample(batch_size, length, device) gives one; Batch.from_dict(...) makes "
            "one of obs, actions, rewards and terminations",
        )
