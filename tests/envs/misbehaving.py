"""Environments that break their word in one way at one step."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

HANG_S = 600.0


class Misbehaving(gymnasium.Env):
    """Well behaved until step `at`; a misbehaviour in `reset` makes step `at` begin an episode."""

    def __init__(self, how: str = "none", at: int = 0) -> None:
        self.observation_space = spaces.Dict(
            {
                "camera": spaces.Box(0, 255, (16, 16, 3), np.uint8),
                "joints": spaces.Box(-1.0, 1.0, (3,), np.float32),
            }
        )
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.how, self.at = how, at
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        if self.steps > 0:
            self.steps += 1  # the step that begins an episode
            if self.how == "raise in reset":
                raise RuntimeError("the simulator is gone")
        return self._observe(), {}

    def step(self, action: np.ndarray) -> Any:
        self.steps += 1
        obs, reward = self._observe(), 1.0
        if self.steps == self.at:
            obs, reward = self._misbehave(obs, reward)
        ending = self.how == "raise in reset" and self.steps == self.at - 1
        return obs, reward, ending, False, {}

    def _misbehave(self, obs: dict[str, Any], reward: float) -> tuple[dict[str, Any], float]:
        if self.how == "raise in step":
            raise RuntimeError("the simulator is gone")
        if self.how == "kill itself":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            sys.exit(0)
        if self.how == "hang":
            time.sleep(HANG_S)
        if self.how == "NaN observation":
            obs["joints"][1] = np.nan
        if self.how == "infinite reward":
            reward = float("inf")
        if self.how == "wrong shape":
            obs["camera"] = obs["camera"][:-1]
        if self.how == "wrong dtype":
            obs["camera"] = obs["camera"].astype(np.float64)
        return obs, reward

    def _observe(self) -> dict[str, Any]:
        camera = np.full((16, 16, 3), self.steps % 256, np.uint8)
        return {"camera": camera, "joints": np.zeros(3, np.float32)}
