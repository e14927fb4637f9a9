"""An episode of the agent, recorded for a page that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from worldflux.acting.agent import Agent
from worldflux.envs.actions import action_rows
from worldflux.envs.spaces import leaf_values

from .policy_graph import PolicyGraph
from .states import environment_of

SEED = 4_500_000  # of the episode; the states of the certificate have others
LONGEST = 500


@dataclass(frozen=True)
class Episode:
    """T steps.

    Attributes:
        observations: `[T, ...]` of each input "observation..." of the policy.
        rows: the actions in the model's own form `[T, A]`.
        rewards: `[T]`, each received with the observation of its step; the first is NaN.
    """

    observations: Mapping[str, np.ndarray]
    rows: np.ndarray
    rewards: np.ndarray


def recorded_episode(agent: Agent, graph: PolicyGraph, policy: str) -> Episode:
    """The agent in its environment, at most `LONGEST` steps.

    An agent that came without an environment sees random observations, and no rewards.
    """
    observations: list[Any] = []
    actions: list[Any] = []
    rewards: list[float] = []
    agent.reset()
    env = environment_of(agent)
    space = agent.observation_space
    if env is None:
        space.seed(SEED)
        observation = space.sample()
    else:
        observation, _ = env.reset(seed=SEED)
    reward: Any = np.nan
    ended = False
    while not ended and len(actions) < LONGEST:
        observations.append(observation)
        rewards.append(float(reward))
        actions.append(agent.act(observation, policy=policy))
        if env is None:
            observation = space.sample()
        else:
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            ended = bool(terminated or truncated)
    if env is not None:
        env.close()
    columns: dict[str, list[Any]] = {port.name: [] for port in graph.ports.values()}
    for value in observations:
        for name, part in leaf_values(space, value):
            columns[graph.ports[name].name].append(part)
    return Episode(
        {name: np.asarray(values) for name, values in columns.items()},
        action_rows(agent.action_space, np.asarray(actions)),
        np.asarray(rewards),
    )
