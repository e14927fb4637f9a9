"""`worldflux/Catch-v0`: a ball falls, a paddle catches it; 64 x 64 pixels and no renderer.

Small enough to learn from images on a CPU in minutes, for tests, documentation and first runs.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

PIXELS = 64  # height and width of the frame
COLUMNS, ROWS = 8, 8  # a board of 8 x 8 cells of 8 x 8 pixels unless told otherwise
BALL, PADDLE = (255, 160, 40), (60, 180, 255)


class Catch(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One ball an episode, from a random column of the top row to the bottom in `rows - 1` steps.

    Observation: uint8 `[64, 64, 3]`. Actions: 0 left, 1 stay, 2 right; the paddle starts in a
    random column too, so that chance catches balls in each. Reward: 1 when the ball lands on the
    paddle, else 0; the landing ends the episode. The seed of `reset` decides everything. A random
    policy catches about one ball in eight. More rows make a smaller ball, a longer episode and a
    later reward. Raises ValueError where `rows` does not divide the frame.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, rows: int = ROWS) -> None:
        if rows < 2 or PIXELS % rows:
            raise ValueError(f"rows is {rows}; {PIXELS} pixels divide into 2, 4, 8, 16, 32 or 64")
        self.render_mode, self.rows = render_mode, rows
        self.observation_space = spaces.Box(0, 255, (PIXELS, PIXELS, 3), np.uint8)
        self.action_space = spaces.Discrete(3)
        self.row, self.column, self.paddle = 0, 0, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self.row = 0
        self.column, self.paddle = map(int, self.np_random.integers(COLUMNS, size=2))
        return self.render(), {}

    def step(self, action: np.int64) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self.paddle = min(max(self.paddle + int(action) - 1, 0), COLUMNS - 1)
        self.row += 1
        landed = self.row == self.rows - 1
        reward = float(landed and self.column == self.paddle)
        return self.render(), reward, landed, False, {}

    def render(self) -> NDArray[np.uint8]:
        """The frame, which is the observation too."""
        board = np.zeros((self.rows, COLUMNS, 3), np.uint8)
        board[-1, self.paddle] = PADDLE
        board[self.row, self.column] = BALL
        return board.repeat(PIXELS // self.rows, 0).repeat(PIXELS // COLUMNS, 1)
