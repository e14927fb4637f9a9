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
from worldflux.envs.faults import failure_of, values_of
from worldflux.envs.namespaces import NO_ENVIRONMENT
from worldflux.envs.spaces import leaf_values
from worldflux.errors import EnvironmentFault
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
    made: Env = open_run(agent.folder, str(agent.checkpoint)).maker()(None)
    return made


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
        observation, _ = _called(env, "reset", 2, seed=seed)
        action = yield observation, True
        ended = False
        while not ended:
            observation, _, terminated, truncated, _ = _called(env, "step", 5, action)
            action = yield observation, False
            ended = bool(terminated or truncated)
        seed += 1


def _called(env: Env, key: str, count: int, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
    try:
        return values_of(key, getattr(env, key)(*args, **kwargs), count)
    except Exception as error:  # an environment raises what it likes
        failure = failure_of(0, key, error, getattr(env.unwrapped, key, None))
        raise EnvironmentFault(
            f"the environment's {failure.key} {failure.problem}",
            where=failure.where,
            hint=failure.hint,
        ) from error


def _drawn(agent: Agent, seed: int) -> Generator[tuple[Any, bool], Any, None]:
    """Random observations of the agent's space."""
    agent.observation_space.seed(seed)
    for step in itertools.count():
        yield agent.observation_space.sample(), step % EPISODE == 0
