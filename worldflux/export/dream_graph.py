"""Imagination as two pure functions of tensors, for a page that plays it: how a dream begins from
what the agent knows, and one step of it.

Both give the model's state "next_NAME", its predictions "predicted_NAME" (see `WorldModel.decode`)
and "row", the policy's action there in the model's own form `[A]`. There is no batch axis.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from worldflux.core.state import State
from worldflux.core.world_model import WorldModel

from .policy_graph import PolicyGraph


class DreamBegins(nn.Module):
    """Takes the observation as `PolicyGraph.forward` does, and "memory_NAME" that acting left."""

    def __init__(self, graph: PolicyGraph) -> None:
        super().__init__()
        self.acting = graph
        self.example = {
            port.name: port.zeros() for port in graph.inputs if not port.name.startswith("noise_")
        }

    def state(self, inputs: dict[str, Tensor]) -> State:
        graph = self.acting
        memory = {name: inputs[f"memory_{name}"].unsqueeze(0) for name in graph.memory}
        carry = {**graph.model.initial_carry(1), **memory}
        return graph.model.acting_state(graph.observed(inputs), carry)

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        state = self.state(inputs)
        return _seen(self.acting.model, state, state.tensors)


class DreamStep(nn.Module):
    """Takes the state "state_NAME" and the action "state_row" that the model is to expect."""

    def __init__(self, begins: DreamBegins) -> None:
        super().__init__()
        self.model = begins.acting.model
        with torch.no_grad():
            self.names = tuple(begins.state(begins.example).tensors)
            seen = begins(**begins.example)
        self.example = {f"state_{name}": seen[f"next_{name}"] for name in self.names}
        self.example["state_row"] = seen["next_row"]

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        state = State({name: inputs[f"state_{name}"].unsqueeze(0) for name in self.names})
        following = self.model.transition(
            state, inputs["state_row"].unsqueeze(0), deterministic=True
        )
        return _seen(self.model, following, self.names)


def exported(module: DreamBegins | DreamStep) -> ExportedProgram:
    """The function as an ATen graph."""
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torch's own
        return torch.export.export(module, (), module.example, strict=False)


def _seen(model: WorldModel, state: State, names: Iterable[str]) -> dict[str, Tensor]:
    predictions = model.decode(state).predictions
    return {
        **{f"next_{name}": state[name][0] for name in names},
        **{f"predicted_{name}": value[0] for name, value in predictions.items()},
        "next_row": model.imagined_action(state)[0],
    }
