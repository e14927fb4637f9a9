"""`worldflux/Catch-v0`: a ball falls, a paddle catches it; 64 x 64 pixels and no renderer.

Small enough to learn from images on a CPU in minutes, for tests, documentation and first runs.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

CELLS, PIXELS = 8, 8  # a board of 8 x 8 cells of 8 x 8 pixels
BALL, PADDLE = (255, 160, 40), (60, 180, 255)


class Catch(gymnasium.Env[np.ndarray, np.int64]):
    """One ball an episode, from a random column of the top row to the bottom row in 7 steps.

    Observation: uint8 `[64, 64, 3]`. Actions: 0 left, 1 stay, 2 right; the paddle starts in a
    random column too, so that chance catches balls in each. Reward: 1 when the ball lands on the
    paddle, else 0; the landing ends the episode. The seed of `reset` decides everything. A random
    policy catches about one ball in eight. `steps_per_row` makes the ball slower: 7 times as many
    steps an episode. Raises ValueError where it is below 1.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, steps_per_row: int = 1) -> None:
        if steps_per_row < 1:
            raise ValueError(f"steps_per_row is {steps_per_row}, and has to be at least 1")
        self.render_mode, self.steps_per_row = render_mode, steps_per_row
        shape = (CELLS * PIXELS, CELLS * PIXELS, 3)
        self.observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.action_space = spaces.Discrete(3)
        self.steps, self.column, self.paddle = 0, 0, 0

    @property
    def row(self) -> int:
        """The ball's row, 0 at the top."""
        return self.steps // self.steps_per_row

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        self.column, self.paddle = map(int, self.np_random.integers(CELLS, size=2))
        return self.render(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.paddle = min(max(self.paddle + int(action) - 1, 0), CELLS - 1)
        self.steps += 1
        landed = self.row == CELLS - 1
        reward = float(landed and self.column == self.paddle)
        return self.render(), reward, landed, False, {}

    def render(self) -> np.ndarray:
        """The frame, which is the observation too."""
        board = np.zeros((CELLS, CELLS, 3), np.uint8)
        board[-1, self.paddle] = PADDLE
        board[self.row, self.column] = BALL
        return board.repeat(PIXELS, 0).repeat(PIXELS, 1)
