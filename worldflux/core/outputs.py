"""What comes out of a model: predictions, losses and imagined trajectories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from worldflux.alpha import missing_attribute
from worldflux.errors import ShapeMismatchError, StateError

from .specs import PredictionSpec, SequenceLayout, StateSpec
from .state import State


class Proposal(NamedTuple):
    """Actions `[N, A]`, the memory of whoever acts so, and how much of a plan they are.

    That is `iterations` `of` so many; both are 0 for a model without a planner.
    """

    action: Tensor
    carry: dict[str, Tensor]
    iterations: int = 0
    of: int = 0


def prediction_of(observation: str, count: int) -> str:
    """The name of an observation among predictions: "obs" if it is the only one of `count`."""
    if count == 1:
        return "obs"
    return f"obs.{observation}" if observation in ("reward", "continue", "value") else observation


@dataclass
class ModelOutput:
    """Predictions of `WorldModel.decode`, keyed by name ("obs", "reward", "continue", "value").

    Shapes: obs `[B, ...]`, reward, continue and value `[B]`; rewards in the environment's units,
    `continue` a probability.

    Raises:
        StateError: when a prediction that `prediction_spec` promises is missing or of another
            shape.
    """

    predictions: dict[str, Tensor] = field(default_factory=dict)
    state: State | None = None
    uncertainty: Tensor | None = None
    aux: dict[str, Any] = field(default_factory=dict)
    prediction_spec: PredictionSpec | None = None
    sequence_layout: SequenceLayout | None = None

    def __post_init__(self) -> None:
        if self.prediction_spec is not None:
            self.prediction_spec.check(self.predictions, "predictions")

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise missing_attribute(self, name)


@dataclass
class LossOutput:
    """A scalar loss `[]` to run backward, its unscaled parts, and plain numbers for the log
    (`metrics_of` makes them of tensors).

    Raises:
        ShapeMismatchError: when the loss is not a scalar.
    """

    loss: Tensor
    components: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.loss.dim() != 0:
            raise ShapeMismatchError(
                f"a loss is a scalar, not a tensor of shape {tuple(self.loss.shape)}"
            )


def metrics_of(watched: Mapping[str, Tensor]) -> dict[str, float]:
    """Scalars `[]` as the metrics of a loss.

    Only a CPU's are read at once. A GPU would be waited for: its stay tensors, which the update
    fetches all together after the backward pass.
    """
    return {
        name: float(value) if value.device.type == "cpu" else value.detach()  # type: ignore[misc]
        for name, value in watched.items()
    }


@dataclass
class Trajectory:
    """An imagined rollout: `len(states) == actions.shape[0] + 1`.

    Shapes: actions `[T, B, A]`, rewards and continues `[T, B]` (continues are probabilities),
    values `[T + 1, B]`.

    Raises:
        StateError: when lengths or batch sizes disagree, or a state is not as `state_spec` says.
    """

    states: list[State]
    actions: Tensor
    rewards: Tensor | None = None
    values: Tensor | None = None
    continues: Tensor | None = None
    state_spec: StateSpec | None = None
    sequence_layout: SequenceLayout | None = None

    def __post_init__(self) -> None:
        horizon = self.actions.shape[0]
        if len(self.states) != horizon + 1:
            raise StateError(
                f"a trajectory of {horizon} actions has {horizon + 1} states, not "
                f"{len(self.states)}"
            )
        for index, state in enumerate(self.states):
            if state.batch_size != self.batch_size:
                raise StateError(
                    f"trajectory.states[{index}] has {state.batch_size} rows, not {self.batch_size}"
                )
            if self.state_spec is not None:
                self.state_spec.check(state.tensors, f"trajectory.states[{index}]")
        if self.actions.dim() < 2 or self.actions.shape[1] != self.batch_size:
            raise StateError(
                f"trajectory.actions has shape {tuple(self.actions.shape)}, expected "
                f"({horizon}, {self.batch_size}, A)"
            )
        expected = {"rewards": horizon, "continues": horizon, "values": horizon + 1}
        for name, length in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and tuple(tensor.shape[:2]) != (length, self.batch_size):
                raise StateError(
                    f"trajectory.{name} has shape {tuple(tensor.shape)}, expected "
                    f"({length}, {self.batch_size})"
                )

    @property
    def horizon(self) -> int:
        """Number of actions."""
        return self.actions.shape[0]

    @property
    def batch_size(self) -> int:
        """Batch size of the first state."""
        return self.states[0].batch_size

    def to_tensor(self, key: str) -> Tensor:
        """One state tensor stacked over time: `[T + 1, B, ...]`."""
        return torch.stack([state[key] for state in self.states])

    def to(self, device: torch.device | str) -> Trajectory:
        """A copy with every tensor on `device`."""
        return self._mapped(lambda value: value.to(device))

    def detach(self) -> Trajectory:
        """A copy cut off from the graph."""
        return self._mapped(lambda value: value.detach())

    def _mapped(self, change: Callable[[Any], Any]) -> Trajectory:
        given = {
            name: getattr(self, name) for name in ("actions", "rewards", "values", "continues")
        }
        changed = {name: change(value) for name, value in given.items() if value is not None}
        return replace(self, states=[change(state) for state in self.states], **changed)
