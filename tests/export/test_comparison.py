"""A choice that rounding decides is counted; every other difference refuses an export."""

from __future__ import annotations

import copy
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from worldflux import Agent, WorldModel, create_world_model
from worldflux.acting.adapter import SpaceAdapter
from worldflux.errors import ExportError
from worldflux.export.comparison import compared, require_close
from worldflux.export.formats import FORMATS, Runner
from worldflux.export.policy_graph import PolicyGraph
from worldflux.progress import SILENT

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
TORQUE = spaces.Box(-1.0, 1.0, (1,), np.float32)
FILE = Path("prior.onnx")

NEEDS = {
    "onnx": pytest.mark.skipif(find_spec("onnxruntime") is None, reason="no onnxruntime"),
    "c": pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler"),
}
each_format = pytest.mark.parametrize(
    "kind", [pytest.param(name, marks=mark) for name, mark in NEEDS.items()]
)


EXACT, ROUNDED = 0.75, 0.75 + 2.0**-24  # float32 that differ in the last digit
LAST_DIGITS = 2.0**20


def chooser(factor: float = EXACT, scale: float = LAST_DIGITS) -> WorldModel:
    """Begins an episode with a choice by the fraction of a scaled sum, and remembers its action."""
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)

    def policy(obs: Tensor, carry: Any, is_first: Tensor, *, explore: bool) -> Any:
        x, y, z = obs[:, :1], obs[:, 1:2], obs[:, 2:]
        total = scale * (factor * x + factor * y + factor * z)
        chosen = (total - total.floor() > 0.5).float() - 0.5
        later = 0.2 * torch.sin(30 * x) + 0.5 * carry["last"]
        action = torch.where(is_first.unsqueeze(-1), chosen, later)
        return action, {"last": action}

    model.policies = lambda: {"prior": policy}  # type: ignore[method-assign]
    model.initial_carry = lambda num: {"last": torch.zeros(num, 1)}  # type: ignore[method-assign]
    return model


def graph_of(model: WorldModel) -> PolicyGraph:
    return PolicyGraph(model, VECTOR, TORQUE)


def difference(run: Runner, model: WorldModel, states: int) -> dict[str, Any]:
    agent = Agent(model, SpaceAdapter("test", VECTOR, TORQUE))
    return compared(run, graph_of(model), agent, states, SILENT)


def in_format(kind: str, written: WorldModel, model: WorldModel, folder: Path) -> dict[str, Any]:
    """A file of one model, compared with another model's agent over ten episodes."""
    file, graph = folder / f"prior{FORMATS[kind].suffix}", graph_of(written)
    agent = Agent(model, SpaceAdapter("test", VECTOR, TORQUE))
    FORMATS[kind].write(graph, file, {"policy": "prior"}, agent)
    with FORMATS[kind].open(file, graph) as run:
        return difference(run, model, 1000)


def in_torch(model: WorldModel, wrong: float = 0.0) -> Runner:
    """The graph itself, whose action is off by a number after the first step of an episode."""
    graph = graph_of(model)

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        outputs = graph(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        found = {name: output.detach().numpy() for name, output in outputs.items()}
        off = np.float32(0.0 if inputs["is_first"] else wrong)
        return found | {"action": found["action"] + off}

    return run


@each_format
def test_a_choice_by_rounding_is_counted_and_forgotten(kind: str, tmp_path: Path) -> None:
    certificate = in_format(kind, chooser(ROUNDED), chooser(EXACT), tmp_path)
    require_close(FILE, certificate)
    count = certificate["decided_by_rounding"]["count"]
    assert 1 <= count <= 10  # of ten first steps
    assert certificate["decided_by_rounding"]["share"] == count / 1000
    assert certificate["largest_difference"] < 1e-6  # of the memory in later steps too


@each_format
def test_other_weights_are_refused(kind: str, tmp_path: Path) -> None:
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)
    written = copy.deepcopy(model)
    with torch.no_grad():
        for weight in written.parameters():
            weight.mul_(1.001)
    certificate = in_format(kind, written, model, tmp_path)
    assert certificate["decided_by_rounding"]["count"] == 0
    with pytest.raises(ExportError, match=r"differs from its agent by .* in 'action'"):
        require_close(FILE, certificate)


@pytest.mark.parametrize(
    ("scale", "wrong"),
    [(-1.0, 0.0), (1.0, 1.001e-5)],
    ids=["the other choice", "a drift barely beyond the tolerance"],
)
def test_a_difference_that_rounding_does_not_explain_is_refused(scale: float, wrong: float) -> None:
    run = in_torch(chooser(EXACT, scale), wrong)
    certificate = difference(run, chooser(EXACT, 1.0), 1000)
    assert certificate["decided_by_rounding"]["count"] == 0
    with pytest.raises(ExportError, match="differs from its agent by"):
        require_close(FILE, certificate)


def test_too_many_choices_by_rounding_are_refused() -> None:
    certificate: dict[str, Any] = {"states": 200, "largest_difference": 0.0}
    require_close(FILE, certificate | {"decided_by_rounding": {"count": 10, "share": 0.05}})
    with pytest.raises(
        ExportError, match=r"rounding decides 11 of 200 steps \(5.5%\), more than 5%"
    ):
        require_close(FILE, certificate | {"decided_by_rounding": {"count": 11, "share": 0.055}})
