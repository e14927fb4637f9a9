"""The standard protocol of Atari games (Machado et al. 2018, as DreamerV3 uses it).

Every action is taken for 4 frames and their rewards are summed; the observation is the pixelwise
maximum of the last two frames, resized by area (or the console's memory after the last one). An
episode begins with up to 30 idle frames; the loss of a life ends nothing. Sticky actions (the
probability that the console repeats its last action at a frame) are the emulator's and stay as
configured: 0.25 in the v5 games.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env, spaces
from numpy.typing import NDArray

from .episode_seeds import CONTINUES
from .images import ImageSpace
from .pixels import AreaResizer
from .returned import number

Frame = NDArray[np.uint8]

PREFIX = "ALE/"
NOOP = 0
ACTION_REPEAT = 4
FRAMES_PER_SECOND = 60  # of the console


class AtariProtocol(gymnasium.Wrapper[Any, np.int64, Any, np.int64]):
    """One game under the protocol of the module.

    Args:
        env: the emulator, one frame a step, whose info tells `lives`.
        size: (height, width) of an observation.
        action_repeat: frames of one action.
        noop_max: idle frames at the beginning are 1 to that many, drawn from the seed; 0 for none.
        terminal_on_life_loss: whether the loss of a life ends the episode. The next reset then
            goes on with the next life.
    """

    def __init__(
        self,
        env: Env,
        size: tuple[int, int],
        *,
        action_repeat: int = ACTION_REPEAT,
        noop_max: int = 30,
        terminal_on_life_loss: bool = False,
    ) -> None:
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Box)
        shape = env.observation_space.shape
        self._resize: AreaResizer | None = None
        if len(shape) > 1:  # else the console's memory
            self._resize = AreaResizer((shape[0], shape[1]), size)
            self.observation_space = ImageSpace((*size, *shape[2:]), 2 if shape[2:] else None)
        self.metadata = {**env.metadata, "render_fps": FRAMES_PER_SECOND / action_repeat}
        self._repeat, self._noop_max = action_repeat, noop_max
        self._ends_with_life = terminal_on_life_loss
        self._lives, self._game_over = 0, True
        self._noops = np.random.default_rng()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Frame, dict[str, Any]]:
        """A new game, or the next life of one that the loss of a life broke off."""
        if seed is not None:
            self._noops = np.random.default_rng(seed)
        if self._game_over or seed is not None:
            frame, info = self._new_game(seed, options)
        else:
            frame, _, terminated, truncated, info = self.env.step(np.int64(NOOP))
            if terminated or truncated:
                frame, info = self._new_game(None, options)
        self._game_over = False
        self._lives = int(info.get("lives", 0))
        return self._observed(frame), info

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """`action_repeat` frames with one action, fewer where the game ends."""
        total = 0.0
        last: list[Frame] = []
        for _ in range(self._repeat):
            frame, reward, terminated, truncated, info = self.env.step(action)
            total += number(reward)
            last = [*last[-1:], frame]
            self._game_over = bool(terminated or truncated)
            lives = int(info.get("lives", 0))
            lost, self._lives = lives < self._lives, lives
            terminated = bool(terminated) or (self._ends_with_life and lost)
            if terminated or truncated:
                break
        if terminated and not self._game_over:
            info = {**info, CONTINUES: True}
        return self._observed(*last), total, terminated, bool(truncated), info

    def _observed(self, *frames: Frame) -> Frame:
        if self._resize is None:
            return frames[-1]
        return self._resize(np.maximum(frames[0], frames[-1]))

    def _new_game(
        self, seed: int | None, options: dict[str, Any] | None
    ) -> tuple[Frame, dict[str, Any]]:
        frame, info = self.env.reset(seed=seed, options=options)
        idle = int(self._noops.integers(1, self._noop_max + 1)) if self._noop_max else 0
        for _ in range(idle):
            frame, _, terminated, truncated, info = self.env.step(np.int64(NOOP))
            if terminated or truncated:
                frame, info = self.env.reset(options=options)
        return frame, info
