"""What `worldflux why` finds by trying an environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest

from worldflux.envs.vector import VectorEnvironment
from worldflux.project.probe import _changed


class Held(gymnasium.Env[Any, Any]):
    """A point that an action moves for `hold` steps, in episodes of `length` steps."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length: int, hold: int) -> None:
        self.length, self.hold = length, hold

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.at, self.steps, self.speed = np.float32(self.np_random.normal()), 0, 0.0
        return np.array([self.at], np.float32), {}

    def step(self, action: Any) -> Any:
        if self.hold and self.steps % self.hold == 0:
            self.speed = float(action[0])
        self.at, self.steps = np.float32(self.at + self.speed), self.steps + 1
        return np.array([self.at], np.float32), 0.0, self.steps == self.length, False, {}


@pytest.mark.parametrize(
    ("length", "hold", "share"),
    [(1, 1, 1.0), (7, 1, 1.0), (100, 1, 1.0), (100, 2, 0.5), (100, 4, 0.25), (100, 0, 0.0)],
)
def test_the_share_of_actions_that_count(length: int, hold: int, share: float) -> None:
    envs = VectorEnvironment("Held", lambda _: Held(length, hold), 2)
    try:
        assert _changed(envs) == share
    finally:
        envs.close()
