"""The five slots of a model: encoder, action conditioner, dynamics, decoder, rollout executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

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
