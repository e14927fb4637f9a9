"""The default rollout executor: transition and decode, step after step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .outputs import ModelOutput, Trajectory
from .payloads import ConditionPayload
from .specs import SequenceLayout, StateSpec
from .state import State

if TYPE_CHECKING:
    from .world_model import WorldModel


class AutoregressiveRollout:
    """Feeds each predicted state back into the dynamics.

    A prediction that every step offers is stacked: rewards and continues `[T, B]` come from the
    states reached (t = 1..T), values `[T + 1, B]` from all states, the initial one included.
    """

    def rollout(
        self,
        model: WorldModel,
        initial_state: State,
        actions: Tensor,
        conditions: ConditionPayload,
        deterministic: bool = False,
    ) -> Trajectory:
        """The open-loop trajectory under `actions` `[T, B, A]`."""
        states = [initial_state]
        for action in actions:
            states.append(model.transition(states[-1], action, conditions, deterministic))
        outputs: list[ModelOutput] = []
        if model.decoder_module is not None:
            outputs = [model.decode(state, conditions) for state in states]
        return Trajectory(
            states=states,
            actions=actions,
            rewards=_stacked(outputs[1:], "reward"),
            continues=_stacked(outputs[1:], "continue"),
            values=_stacked(outputs, "value"),
            state_spec=StateSpec.of(_common(states)),
            sequence_layout=SequenceLayout(
                {"actions": "TBA", "rewards": "TB", "continues": "TB", "values": "TB"}
            ),
        )


def _common(states: list[State]) -> dict[str, Tensor]:
    """The tensors of the initial state that every state has (a root has no reward, for one)."""
    return {
        name: tensor
        for name, tensor in states[0].tensors.items()
        if all(name in state.tensors for state in states)
    }


def _stacked(outputs: list[ModelOutput], name: str) -> Tensor | None:
    if not outputs or any(name not in output.predictions for output in outputs):
        return None
    return torch.stack([output.predictions[name] for output in outputs])
