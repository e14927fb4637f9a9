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

COMPONENT_SLOTS = (
    "observation_encoder",
    "action_conditioner",
    "dynamics_model",
    "decoder_module",
    "rollout_executor",
)


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


# Slot -> its protocol, the method that is called, and with how many arguments.
_SLOTS: dict[str, tuple[Any, str, int]] = {
    "observation_encoder": (ObservationEncoder, "encode", 2),
    "action_conditioner": (ActionConditioner, "condition", 3),
    "dynamics_model": (DynamicsModel, "transition", 3),
    "decoder_module": (Decoder, "decode", 2),
    "rollout_executor": (RolloutExecutor, "rollout", 5),
}
METHOD_OF_SLOT = {slot: method for slot, (_, method, _) in _SLOTS.items()}
Returned = TypeVar("Returned")


def require_fitting(model: str, slot: str, component: Any, replaceable: Collection[str]) -> None:
    """Refuse a part that `model` could not call in `slot`.

    Raises:
        ConfigurationError: when the slot is unknown, not among `replaceable`, or the part's method
            is missing or takes other arguments.
    """
    if slot not in COMPONENT_SLOTS:
        known = ", ".join(map(repr, COMPONENT_SLOTS))
        raise ConfigurationError(
            f"no component slot {slot!r}: known are {known}",
            hint=did_you_mean(slot, COMPONENT_SLOTS),
        )
    if slot not in replaceable:
        raise ConfigurationError(f"{model} cannot replace {slot!r}: {sorted(replaceable)}")
    protocol, method, arguments = _SLOTS[slot]
    part = f"{type(component).__name__} does not fit slot {slot!r}"
    if not isinstance(component, protocol):
        raise ConfigurationError(f"{part}: it has no {method}()")
    taken = inspect.signature(getattr(component, method))
    expected = inspect.signature(getattr(protocol, method))
    try:
        taken.bind(*[None] * arguments)
    except TypeError:
        wanted = ", ".join(list(expected.parameters)[1:])
        raise ConfigurationError(f"{part}: its {method}{taken} is called with ({wanted})") from None


def require_returned(slot: str, value: Returned, expected: type | tuple[type, ...]) -> Returned:
    """What the part in `slot` returned, if it is of the `expected` type.

    Raises:
        ConfigurationError: naming the slot, and the type expected and given.
    """
    if not isinstance(value, expected):
        kinds = expected if isinstance(expected, tuple) else (expected,)
        names = " or ".join(kind.__name__ for kind in kinds if kind is not type(None))
        raise ConfigurationError(
            f"the part in slot {slot!r} returned a {type(value).__name__}, expected a {names}"
        )
    return value
