"""What goes into a model, checked: observations, actions, and the rows that belong together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from worldflux.errors import ConfigurationError, ShapeMismatchError

from .config import WorldModelConfig
from .learning import Carry
from .payloads import ActionPayload, ActionSequence, WorldModelInput
from .specs import ModalitySpec
from .state import State

Observation = Tensor | dict[str, Tensor] | WorldModelInput


def on_device(
    obs: NDArray[Any] | Mapping[str, NDArray[Any]], device: torch.device | str = "cpu"
) -> Tensor | dict[str, Tensor]:
    """Numpy observations `[N, ...]` as tensors of the same shapes and dtypes on `device`."""
    if isinstance(obs, Mapping):
        return {name: torch.from_numpy(value).to(device) for name, value in obs.items()}
    return torch.from_numpy(obs).to(device)


def steps_as_rows(obs: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Observations `[T, B, ...]` as `[T * B, ...]`, step after step."""
    if isinstance(obs, dict):
        return {name: value.flatten(0, 1) for name, value in obs.items()}
    return obs.flatten(0, 1)


def named_observations(
    obs: Tensor | Mapping[str, Tensor], modalities: Mapping[str, ModalitySpec]
) -> dict[str, Tensor]:
    """The tensors `[B, ...]` that a model of these modalities takes, by name, shapes checked."""
    if isinstance(obs, Mapping):
        named = obs
    elif len(modalities) == 1:
        named = {next(iter(modalities)): obs}
    else:
        raise ShapeMismatchError(
            f"this model takes named observations {sorted(modalities)}, not one tensor"
        )
    missing = modalities.keys() - named.keys()
    if missing:
        raise ShapeMismatchError(
            f"observation {sorted(missing)[0]!r} is missing; given are {sorted(named)}"
        )
    for name, spec in modalities.items():
        _require_tensor(f"observation {name!r}", named[name])
        expected, given = spec.shape, tuple(named[name].shape)
        if given[-len(expected) :] != expected or len(given) == len(expected):
            axes = ", ".join(map(str, expected))
            raise ShapeMismatchError(
                f"observation {name!r} has shape {given}, expected [B, {axes}]"
            )
    return {name: named[name] for name in modalities}


def _require_tensor(what: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise ShapeMismatchError(
            f"{what} is a {type(value).__name__}, expected a torch.Tensor",
            hint="make one: torch.as_tensor(value)",
        )


class ModelInputs(nn.Module):
    """Turns observations and actions into tensors of a model's shapes, or says what does not fit.

    Nothing is broadcast: an action batch has as many rows as the state that it moves.
    """

    config: WorldModelConfig
    modalities: dict[str, ModalitySpec]

    def observations(self, obs: Observation) -> dict[str, Tensor]:
        """The observation as a dict of named tensors `[B, ...]`, shapes checked.

        Raises:
            ShapeMismatchError: naming the modality, the shape expected and the one given.
        """
        given = obs.observations if isinstance(obs, WorldModelInput) else obs
        return named_observations(given, self.modalities)

    def acting_observations(
        self, obs: Tensor | dict[str, Tensor], carry: Carry, is_first: Tensor
    ) -> dict[str, Tensor]:
        """`observations` `[N, ...]` of a policy, whose memory and `is_first` have N rows too.

        Raises:
            ShapeMismatchError: naming what has another number of rows.
        """
        named = self.observations(obs)
        rows = len(next(iter(named.values())))
        for name, tensor in {**named, **carry, "is_first": is_first}.items():
            if tensor.dim() == 0 or len(tensor) != rows:
                raise ShapeMismatchError(
                    f"{name!r} has shape {tuple(tensor.shape)}, "
                    f"expected a row for each of the {rows} environments"
                )
        return named

    def action_tensor(self, action: ActionPayload | Tensor | None) -> Tensor | None:
        """An action as floats `[..., A]`; discrete indices become one-hot rows.

        Raises:
            ConfigurationError: when the payload is of another kind than the model's actions.
            ShapeMismatchError: when the last axis is not the model's action size.
        """
        if isinstance(action, ActionPayload):
            action.validate(action_dim=self.config.action_dim)
            if action.kind not in ("none", self.config.action_type):
                raise ConfigurationError(
                    f"this model takes {self.config.action_type!r} actions, not {action.kind!r}"
                )
            action = action.primary()
        if action is None:
            return None
        _require_tensor("the action", action)
        if self.config.action_type == "discrete" and not action.is_floating_point():
            return self.action_rows(action)
        size = self.config.action_dim
        if action.dim() == 0 or action.shape[-1] != size:
            raise ShapeMismatchError(
                f"the action has shape {tuple(action.shape)}, expected [..., {size}]"
            )
        if action.dtype in (torch.float16, torch.bfloat16, torch.float32):
            return action
        weights = next(self.parameters(), None)  # numpy's floats are double
        return action.to(torch.float32 if weights is None else weights.dtype)

    def step_action(self, action: ActionPayload | Tensor | None, rows: int) -> Tensor | None:
        """The action `[B, A]` of a step of B = `rows` states; `[A]` is one for a single row.

        Raises:
            ShapeMismatchError: when it has another number of rows or another size.
        """
        tensor = self.action_tensor(action)
        if tensor is None:
            return None
        if tensor.dim() == 1 and rows == 1:
            tensor = tensor.unsqueeze(0)
        size = self.config.action_dim
        if tuple(tensor.shape) != (rows, size):
            raise ShapeMismatchError(
                f"the action has shape {tuple(tensor.shape)}, expected [{rows}, {size}]"
            )
        return tensor

    def action_rows(self, indices: Tensor) -> Tensor:
        """One-hot rows `[..., A]` of the indices `[...]` of discrete actions.

        Raises:
            ShapeMismatchError: for an index that no action has.
        """
        size = self.config.action_dim
        if indices.numel() and (int(indices.min()) < 0 or int(indices.max()) >= size):
            raise ShapeMismatchError(f"a discrete action is an index below {size}")
        return functional.one_hot(indices.long(), size).to(torch.float32)

    def action_sequence(
        self, sequence: ActionSequence | ActionPayload | Tensor | None, initial: State
    ) -> Tensor:
        """Actions `[T, B, A]` for the B rows of a state; none at all are T = 0.

        Raises:
            ConfigurationError: when a step of a list carries no action.
            ShapeMismatchError: when the actions do not fit the model or the state's rows.
        """
        rows, size = initial.batch_size, self.config.action_dim
        if isinstance(sequence, ActionSequence) and sequence.payloads is not None:
            steps = [self._action_of(t, p, rows) for t, p in enumerate(sequence.payloads)]
            actions = torch.stack(steps) if steps else None
        else:
            given = sequence.tensor if isinstance(sequence, ActionSequence) else sequence
            actions = self.action_tensor(given)
            if isinstance(given, ActionPayload) and actions is not None and actions.dim() < 3:
                step = self.step_action(given, rows)
                actions = None if step is None else step.unsqueeze(0)
        if actions is None:
            return torch.zeros((0, rows, size), device=initial.device)
        if actions.dim() != 3 or actions.shape[1] != rows:
            raise ShapeMismatchError(
                f"the action sequence has shape {tuple(actions.shape)}, "
                f"expected [T, {rows}, {size}]"
            )
        return actions

    def _action_of(self, step: int, payload: ActionPayload, rows: int) -> Tensor:
        action = self.step_action(payload, rows)
        if action is None:
            raise ConfigurationError(f"step {step} of the action sequence carries no action")
        return action
