"""The states that an export is compared over: what the agent sees, draws and does, step by step."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from gymnasium import Env

from worldflux.acting.agent import Agent
from worldflux.acting.random_stream import RandomStream
from worldflux.core.inputs import on_device
from worldflux.envs.faults import begun, checked_environment, guarded, stepped
from worldflux.envs.namespaces import NO_ENVIRONMENT
from worldflux.envs.spaces import leaf_values
from worldflux.project.dataset_file import GIVEN
from worldflux.project.open_run import open_run

from .draws import Draws
from .policy_graph import PolicyGraph

EPISODE = 100  # observations of an episode, where they do not come from an environment

Values = dict[str, np.ndarray]


def environment_of(agent: Agent) -> Env | None:
    """A copy of the environment that the agent learned in; None where nothing names one."""
    name = agent.adapter.name
    if agent.folder is None or name == NO_ENVIRONMENT or name.startswith(GIVEN):
        return None
    make = open_run(agent.folder, str(agent.checkpoint)).maker()
    with guarded("make"):
        return checked_environment(make(None))


def played(
    agent: Agent, graph: PolicyGraph, env: Env | None, count: int, seed: int
) -> Iterator[tuple[Values, Values]]:
    """Inputs without memory, and outputs, of `count` steps of the agent, episode after episode.

    They are of the environment; without one, observations are drawn from their space.

    Raises:
        EnvironmentFault: when the environment fails.
    """
    model, adapter = agent.model, agent.adapter
    stream, carry = RandomStream(seed, model), model.initial_carry(1)
    observations = _drawn(agent, seed) if env is None else _visited(env, seed)
    observation, is_first = next(observations)
    for _ in range(count):
        arrays = adapter.encode(observation)
        with stream.drawing(), Draws() as draws:
            rows, carry = graph.act(
                on_device(arrays, model.device), carry, torch.tensor([is_first]), explore=False
            )
        action = adapter.actions(rows.numpy())[0]
        given = {graph.ports[name].name: value for name, value in leaf_values(
            agent.observation_space, observation)}  # fmt: skip
        given["is_first"] = np.array(is_first)
        given |= {f"noise_{kind}": drawn.numpy() for kind, drawn in draws.by_kind().items()}
        inputs = {port.name: np.asarray(given[port.name], port.dtype)
                  for port in graph.inputs if port.name in given}  # fmt: skip
        yield (
            inputs,
            {"action": action} | {f"next_{name}": carry[name][0].numpy() for name in graph.memory},
        )
        observation, is_first = observations.send(action)


def _visited(env: Env, seed: int) -> Generator[tuple[Any, bool], Any, None]:
    """Observations of an environment, each with whether it begins an episode; actions are sent."""
    while True:
        observation = begun(env, seed)
        action = yield observation, True
        ended = False
        while not ended:
            observation, _, terminated, truncated = stepped(env, action)
            action = yield observation, False
            ended = terminated or truncated
        seed += 1


def _drawn(agent: Agent, seed: int) -> Generator[tuple[Any, bool], Any, None]:
    """Random observations of the agent's space."""
    agent.observation_space.seed(seed)
    for step in itertools.count():
        yield agent.observation_space.sample(), step % EPISODE == 0
