"""The agent collects its own data: act, store, step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from worldflux.core.learning import Carry
from worldflux.core.world_model import WorldModel
from worldflux.envs.vector import EnvStep, VectorEnvironment

from .replay import ReplayBuffer


@dataclass(frozen=True)
class Episode:
    """An episode that ended while collecting: undiscounted return, and length in agent steps."""

    episode_return: float
    length: int


class Collector:
    """Steps N environments with random actions or the model's policy, into a replay buffer.

    The row of an observation is stored when its action is chosen, so that observation, action,
    reward and flags stand together (see `worldflux.data.replay`).
    """

    def __init__(self, envs: VectorEnvironment, buffer: ReplayBuffer, seed: int) -> None:
        self.envs = envs
        self.buffer = buffer
        self.env_steps = 0
        self.episodes_ended = 0
        self._rng = np.random.default_rng(seed)
        self._seed = seed
        self._step: EnvStep | None = None
        self._carry: Carry | None = None
        self._returns = np.zeros(envs.num_envs)
        self._lengths = np.zeros(envs.num_envs, np.int64)

    def collect_random(self) -> list[Episode]:
        """One step of every environment with uniformly random actions."""
        spec, count = self.envs.spec, self.envs.num_envs
        if spec.action_type == "discrete":
            chosen = self._rng.integers(0, spec.action_dim, count)
            actions = np.eye(spec.action_dim, dtype=np.float32)[chosen]
        else:
            actions = self._rng.uniform(-1.0, 1.0, (count, spec.action_dim)).astype(np.float32)
        return self._advance(actions, {})

    def collect(self, model: WorldModel) -> list[Episode]:
        """One step of every environment with the model's exploring policy."""
        step = self._current()
        if self._carry is None:
            self._carry = model.initial_carry(self.envs.num_envs)
        device = model.device
        actions, self._carry = model.policy(
            torch.from_numpy(step.obs).to(device),
            self._carry,
            torch.from_numpy(step.is_first).to(device),
            explore=True,
        )
        columns = {name: self._carry[name].cpu().numpy() for name in self.buffer.extra_columns}
        return self._advance(actions.cpu().numpy(), columns)

    def _current(self) -> EnvStep:
        if self._step is None:
            self._step = self.envs.reset(self._seed + self.env_steps)
        return self._step

    def _advance(self, actions: Any, columns: dict[str, Any]) -> list[Episode]:
        step = self._current()
        actions = np.where(step.is_last[:, None], 0.0, actions).astype(np.float32)
        extras = {
            name: columns.get(name, np.zeros((self.envs.num_envs, *shape), np.float32))
            for name, shape in self.buffer.extra_columns.items()
        }
        following = self.envs.step(actions)
        self.buffer.add(
            step.obs,
            actions,
            step.reward,
            step.is_first,
            step.is_last,
            step.is_terminal,
            extras,
        )
        self.env_steps += int((~following.is_first).sum())
        self._step = following
        return self._ended_episodes(following)

    def _ended_episodes(self, step: EnvStep) -> list[Episode]:
        self._returns += step.reward
        self._lengths += ~step.is_first
        ended = []
        for index in np.flatnonzero(step.is_last):
            ended.append(Episode(float(self._returns[index]), int(self._lengths[index])))
            self._returns[index], self._lengths[index] = 0.0, 0
        self.episodes_ended += len(ended)
        return ended

    def state_dict(self) -> dict[str, Any]:
        """Counters and the random stream, JSON-ready. Environments restart on resume."""
        return {
            "env_steps": self.env_steps,
            "episodes_ended": self.episodes_ended,
            "rng": dict(self._rng.bit_generator.state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue the counters; every environment begins a new episode."""
        self.env_steps = int(state["env_steps"])
        self.episodes_ended = int(state["episodes_ended"])
        self._rng.bit_generator.state = state["rng"]
        self._step, self._carry = None, None
        self._returns[:], self._lengths[:] = 0.0, 0
