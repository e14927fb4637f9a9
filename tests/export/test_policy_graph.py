"""The graph of a policy is the agent: the same actions, with its memory carried over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from worldflux import Agent, CapabilityError, WorldModel, create_world_model
from worldflux.acting.adapter import SpaceAdapter
from worldflux.export.comparison import compared
from worldflux.export.formats import Runner
from worldflux.export.policy_graph import PolicyGraph
from worldflux.progress import SILENT

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "latent_mlp"
VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
TORQUE = spaces.Box(-2.0, 2.0, (1,), np.float32)
FEW = {
    "num_q_networks": 3,
    "horizon": 2,
    "num_samples": 8,
    "num_elites": 4,
    "num_pi_trajs": 2,
    "iterations": 1,
}


def graph_and_difference(
    model: WorldModel,
    observation: spaces.Space,
    action: spaces.Space,
    policy: str = "prior",
) -> tuple[PolicyGraph, float]:
    """The graph, and its largest difference from the agent in 120 steps of two episodes."""
    graph = PolicyGraph(model, observation, action, policy)
    agent = Agent(model, SpaceAdapter("test", observation, action))
    return graph, compared(runner(graph), graph, agent, 120, SILENT)["largest_difference"]


def runner(graph: PolicyGraph, **forced: np.ndarray) -> Runner:
    """Runs a graph's program; `forced` inputs take the place of the given ones."""
    step = graph.program.module()

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = {name: torch.from_numpy(forced.get(name, value)) for name, value in inputs.items()}
        with torch.no_grad():
            return {name: tensor.numpy() for name, tensor in step(**given).items()}

    return run


def test_the_prior_of_tdmpc2_has_no_memory_and_no_noise() -> None:
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)
    graph, difference = graph_and_difference(model, VECTOR, TORQUE)
    assert difference < 1e-6
    assert [port.name for port in graph.inputs] == ["observation", "is_first"]
    with pytest.raises(CapabilityError, match="has no policy 'best'; it has plan, prior"):
        PolicyGraph(model, VECTOR, TORQUE, "best")


def test_the_planner_plans_the_same_from_the_same_noise() -> None:
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1, **FEW)
    graph, difference = graph_and_difference(model, VECTOR, TORQUE, "plan")
    assert difference < 1e-6
    assert [port.name for port in graph.inputs[2:]] == [
        "memory_prev_mean",
        "memory_valid",
        "noise_normal",
        "noise_permutation_of_3",
        "noise_exponential",
    ]


def test_dreamer_reads_named_observations_and_carries_its_memory_over() -> None:
    camera = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    observed = spaces.Dict(camera=spaces.Dict(left=camera), speed=spaces.Box(-9.0, 9.0, (2,)))
    model = create_world_model(
        "dreamerv3:ci",
        obs_shape=(3, 64, 64),
        observation_modalities={
            "camera/left": {"kind": "image", "shape": [3, 64, 64]},
            "speed": {"kind": "vector", "shape": [2]},
        },
        action_dim=4,
        action_type="discrete",
        actor_critic=True,
    )
    graph, difference = graph_and_difference(model, observed, spaces.Discrete(4))
    assert difference < 1e-6
    names = [port.name for port in graph.inputs]
    assert names[:3] == ["observation_camera_left", "observation_speed", "is_first"]
    assert [port.shape for port in graph.outputs] == [(), (64,), (4,), (4,)]
    agent = Agent(model, SpaceAdapter("test", observed, spaces.Discrete(4)))
    forgetful = compared(runner(graph, is_first=np.array(True)), graph, agent, 5, SILENT)
    assert forgetful["largest_difference"] > 1e-3  # one that forgets is found out


def test_a_family_of_another_package_is_exported_with_what_it_draws(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    from worldflux_latent_mlp import LatentMLP, LatentMLPConfig

    model = LatentMLP(LatentMLPConfig(candidates=4, plan_horizon=2)).eval()
    graph, difference = graph_and_difference(model, VECTOR, TORQUE)
    assert difference < 1e-6
    assert [port.name for port in graph.inputs] == ["observation", "is_first", "noise_uniform"]


def test_a_policy_that_no_graph_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)

    def by_sign(obs: Any, carry: Any, is_first: Any, *, explore: bool) -> Any:
        return (obs[:, :1] if float(obs.sum()) > 0 else -obs[:, :1]), carry

    def by_dice(obs: Any, carry: Any, is_first: Any, *, explore: bool) -> Any:
        return torch.normal(obs[:, :1], 1.0), carry

    for policy, reason in ((by_sign, "is no graph of tensors"), (by_dice, "draws by aten.normal")):
        monkeypatch.setattr(model, "policies", lambda policy=policy: {"prior": policy})
        with pytest.raises(CapabilityError, match=f"cannot be exported: its policy {reason}"):
            PolicyGraph(model, VECTOR, TORQUE)
