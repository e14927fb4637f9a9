"""The graph of a policy is the agent: the same actions, with its memory carried over."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces

from worldflux import Agent, WorldModel, create_world_model
from worldflux.acting.adapter import SpaceAdapter
from worldflux.export.draws import Draws
from worldflux.export.policy_graph import PolicyGraph

VECTOR = spaces.Box(-np.inf, np.inf, (3,), np.float32)
FEW = {"horizon": 2, "num_samples": 8, "num_elites": 4, "num_pi_trajs": 2, "iterations": 1}


def largest_difference(
    model: WorldModel, observation: spaces.Space, action: spaces.Space, policy: str
) -> float:
    """Between graph and agent over some steps of two episodes, each with its own memory."""
    graph = PolicyGraph(model, observation, action, policy)
    step = graph.program.module()
    agent = Agent(model, SpaceAdapter("test", observation, action))
    values: dict[str, Any] = {port.name: port.zeros() for port in graph.inputs}
    observation.seed(0)
    worst = 0.0
    for number in range(12):
        seen, first = observation.sample(), number % 7 == 0
        with Draws() as draws:
            expected = agent.act(seen, first, policy=policy)
        noise = {f"noise_{kind}": drawn for kind, drawn in draws.by_kind().items()}
        values |= {name: noise[name] for name in values if name in noise}
        values["observation"] = torch.from_numpy(np.asarray(seen))
        values["is_first"] = torch.tensor(first)
        with torch.no_grad():
            found = step(**values)
        worst = max(worst, float(np.abs(found["action"].numpy() - expected).max()))
        values |= {f"memory_{name}": found[f"next_{name}"] for name in graph.memory}
    return worst


def test_the_prior_of_tdmpc2_has_no_memory_and_no_noise() -> None:
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=2)
    torque = spaces.Box(-2.0, 2.0, (2,), np.float32)
    assert largest_difference(model, VECTOR, torque, "prior") < 1e-6
    graph = PolicyGraph(model, VECTOR, torque, "prior")
    assert [port.name for port in graph.inputs] == ["observation", "is_first"]


def test_the_planner_plans_the_same_with_the_same_noise() -> None:
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1, **FEW)
    assert largest_difference(model, VECTOR, spaces.Box(-1.0, 1.0, (1,)), "plan") < 1e-6


def test_dreamer_carries_its_memory_over() -> None:
    model = create_world_model(
        "dreamerv3:ci", obs_shape=(3,), action_dim=4, action_type="discrete", actor_critic=True
    )
    assert largest_difference(model, VECTOR, spaces.Discrete(4), "prior") == 0


def test_dreamer_reads_pixels_and_other_observations_by_name() -> None:
    camera = spaces.Box(0, 255, (64, 64, 3), np.uint8)
    modalities = {"camera/left": {"kind": "image", "shape": [3, 64, 64]},
                  "speed": {"kind": "vector", "shape": [1]}}  # fmt: skip
    model = create_world_model(
        "dreamerv3:ci", obs_shape=(3, 64, 64), action_dim=2, observation_modalities=modalities,
        actor_critic=True,
    )  # fmt: skip
    observed = spaces.Dict(
        {"camera": spaces.Dict({"left": camera}), "speed": spaces.Box(0, 1, (1,))}
    )
    graph = PolicyGraph(model, observed, spaces.Box(-1.0, 1.0, (2,)))
    names = [port.name for port in graph.inputs]
    assert names[:3] == ["observation_camera_left", "observation_speed", "is_first"]
