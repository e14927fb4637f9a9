"""The five slots of a model: encoder, action conditioner, dynamics, decoder, rollout executor."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

from worldflux.errors import ConfigurationError, did_you_mean

from .outputs import ModelOutput, Trajectory
from .payloads import ConditionPayload
from .state import State

if TYPE_CHECKING:
    from .world_model import WorldModel


@runtime_checkable
class ObservationEncoder(Protocol):
    """Observations `[B, ...]` by modality name -> latent state."""

    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        """The latent state of each observation."""
        ...


@runtime_checkable
class ActionConditioner(Protocol):
    """Action `[B, A]` and conditions -> the tensor `[B, ...]` that the dynamics takes."""

    def condition(
        self, state: State, action: Tensor | None, conditions: ConditionPayload
    ) -> Tensor | None:
        """The dynamics input for this action, or None for an unconditional step."""
        ...


@runtime_checkable
class DynamicsModel(Protocol):
    """State and conditioned action -> next state."""

    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        """One imagined step `[B, ...]`; `conditioned` is what the action conditioner gave."""
        ...


@runtime_checkable
class Decoder(Protocol):
    """State -> predictions."""

    def decode(self, state: State, conditions: ConditionPayload) -> ModelOutput:
        """Predictions by name."""
        ...


@runtime_checkable
class RolloutExecutor(Protocol):
    """Chains transition and decode over an action sequence."""

    def rollout(
        self,
        model: WorldModel,
        initial_state: State,
        actions: Tensor,
        conditions: ConditionPayload,
        deterministic: bool = False,
    ) -> Trajectory:
        """The open-loop trajectory under `actions` `[T, B, A]`."""
        ...


# Slot -> its protocol, and the method that is called with all its arguments.
_SLOTS: dict[str, tuple[Any, str]] = {
    "observation_encoder": (ObservationEncoder, "encode"),
    "action_conditioner": (ActionConditioner, "condition"),
    "dynamics_model": (DynamicsModel, "transition"),
    "decoder_module": (Decoder, "decode"),
    "rollout_executor": (RolloutExecutor, "rollout"),
}
COMPONENT_SLOTS = tuple(_SLOTS)
METHOD_OF_SLOT = {slot: method for slot, (_, method) in _SLOTS.items()}
Returned = TypeVar("Returned")


def require_fitting(model: str, slot: str, component: Any, replaceable: Collection[str]) -> None:
    """Refuse a part that `model` could not call in `slot`."""
    if slot not in COMPONENT_SLOTS:
        known = ", ".join(map(repr, COMPONENT_SLOTS))
        raise ConfigurationError(
            f"no component slot {slot!r}: known are {known}",
            hint=did_you_mean(slot, COMPONENT_SLOTS),
        )
    if slot not in replaceable:
        raise ConfigurationError(f"{model} cannot replace {slot!r}: {sorted(replaceable)}")
    protocol, method = _SLOTS[slot]
    part = f"{type(component).__name__} does not fit slot {slot!r}"
    if not isinstance(component, protocol):
        raise ConfigurationError(f"{part}: it has no {method}()")
    taken = inspect.signature(getattr(component, method))
    expected = list(inspect.signature(getattr(protocol, method)).parameters)[1:]
    try:
        taken.bind(*[None] * len(expected))
    except TypeError:
        raise ConfigurationError(
            f"{part}: its {method}{taken} is called with ({', '.join(expected)})"
        ) from None


def require_returned(slot: str, value: Returned, expected: type | tuple[type, ...]) -> Returned:
    """What the part in `slot` returned, if it is of the `expected` type."""
    if not isinstance(value, expected):
        kinds = expected if isinstance(expected, tuple) else (expected,)
        names = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
        raise ConfigurationError(
            f"the part in slot {slot!r} returned a {type(value).__name__}, expected a {names}"
        )
    return value
