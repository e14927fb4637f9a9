"""Small environments and what can be wrong with them, for the study of `worldflux why`."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux.envs.catch import Catch

Env = gymnasium.Env[Any, Any]


class Reach(Env):
    """Move a point in a square to the middle: observation and action of two numbers, 50 steps."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.place = np.zeros(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 2)
        return self.place.astype(np.float32), {}

    def step(self, action: Any) -> Any:
        self.place = np.clip(self.place + 0.1 * np.asarray(action), -2, 2)
        return self.place.astype(np.float32), -float(np.abs(self.place).sum()), False, False, {}


class Balance(gymnasium.Wrapper[Any, Any, Any, Any]):
    """CartPole with the sign of one continuous action."""

    def __init__(self) -> None:
        super().__init__(gymnasium.make("CartPole-v1"))
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def step(self, action: Any) -> Any:
        return self.env.step(int(np.asarray(action).item() > 0))


def healthy(name: str) -> Env:
    """One environment of the study."""
    if name == "reach":
        return gymnasium.wrappers.TimeLimit(Reach(), 50)
    return Balance() if name == "balance" else Catch() if name == "catch" else gymnasium.make(name)


class Faulty(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment with one fault."""

    def __init__(self, env: Env, fault: str) -> None:
        super().__init__(env)
        self.fault, self._past = fault, list[Any]()
        self._rng = np.random.default_rng(0)
        space = env.observation_space
        if fault == "scale" and isinstance(space, spaces.Box):
            self.observation_space = spaces.Box(-np.inf, np.inf, space.shape, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._rng = np.random.default_rng(seed)
        self.env.action_space.seed(seed)
        self._past = [self.env.action_space.sample() for _ in range(64)]
        obs, info = self.env.reset(seed=None if self.fault == "seed" else seed, options=options)
        return self._seen(obs), info

    def step(self, action: Any) -> Any:
        if self.fault == "actions":
            place = int(self._rng.integers(len(self._past)))
            action, self._past[place] = self._past[place], action
        obs, reward, terminated, truncated, info = self.env.step(action)
        if self.fault == "limit as death":
            terminated, truncated = terminated or truncated, False
        if self.fault == "no death":
            terminated, truncated = False, terminated or truncated
        if self.fault == "reward":
            reward = 1e4 * float(reward)
        return self._seen(obs), reward, terminated, truncated, info

    def _seen(self, obs: Any) -> Any:
        if self.fault == "pixels":
            return np.full_like(obs, 127)
        if self.fault == "scale":
            obs = np.array(obs, np.float32)
            obs[-1] *= 1e5
        return obs


def make(name: str, fault: str) -> Env:
    """An environment of the study, with a fault of its own or, "healthy", without any."""
    return Faulty(healthy(name), fault)
