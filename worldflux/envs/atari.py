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

from worldflux.errors import EnvironmentSetupError

from .episode_seeds import CONTINUES
from .faults import number
from .make import check_arguments, gym_environment
from .namespaces import ATARI, frames_per_step
from .spaces import ImageSpace
from .wrappers import IMAGE_SIZE, AreaResizer, Preparation

FRAMES_PER_SECOND = 60  # of the console


def register() -> None:
    """Make the games known to Gymnasium, without a banner from each process."""
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    gymnasium.register_envs(ale_py)


def build(
    env_id: str, render_mode: str | None, prepared: Preparation, arguments: dict[str, Any]
) -> Env:
    """One game under the protocol, whose own arguments may be among `arguments`."""
    protocol = {name: arguments.pop(name) for name in ATARI.arguments if name in arguments}
    if "frameskip" in arguments:
        raise EnvironmentSetupError(
            f"{env_id}: the frames of one action are the Atari protocol's, not frameskip's",
            hint="set environment_kwargs.action_repeat",
        )
    check_arguments(env_id, arguments)
    usual = Preparation()
    for name in ("pixels", "image_size", "frame_stack"):
        is_set = getattr(prepared, name) != getattr(usual, name)
        if is_set and arguments.get("obs_type") == "ram":
            raise EnvironmentSetupError(
                f'{env_id} observes its memory (obs_type = "ram"), and environment_kwargs.{name} '
                "needs images",
                hint=f'leave out obs_type = "ram", or environment_kwargs.{name}',
            )
    emulator = gym_environment(env_id, render_mode, frameskip=1, **arguments)
    repeat = frames_per_step(env_id, prepared.action_repeat)
    size = prepared.image_size or IMAGE_SIZE
    return AtariProtocol(emulator, size, action_repeat=repeat, **protocol)


class AtariProtocol(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One game under the protocol of the module.

    Args:
        env: the emulator, one frame a step, whose info has `lives`.
        size: (height, width) of an observation.
        action_repeat: frames of one action.
        noop_max: idle frames at the beginning are 1 to that many, drawn from the seed; 0 for none.
        terminal_on_life_loss: whether the loss of a life ends the episode. The next reset then
            continues with the next life.
    """

    def __init__(
        self,
        env: Env,
        size: tuple[int, int],
        *,
        action_repeat: int = ATARI.action_repeat,
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
        actions = env.action_space  # 0 is idle among discrete ones, a joystick at rest among others
        self._noop = np.zeros(actions.shape or (), actions.dtype)[()]
        self._ends_with_life = terminal_on_life_loss
        self._lives, self._game_over = 0, True
        self._noops = np.random.default_rng()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new game, or the next life of a game that the loss of a life interrupted."""
        if seed is not None:
            self._noops = np.random.default_rng(seed)
        if self._game_over or seed is not None:
            frame, info = self._new_game(seed, options)
        else:
            frame, _, terminated, truncated, info = self.env.step(self._noop)
            if terminated or truncated:
                frame, info = self._new_game(None, options)
        self._game_over = False
        self._lives = int(info.get("lives", 0))
        return self._observed(frame), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """`action_repeat` frames with one action, fewer where the game ends."""
        total = 0.0
        last: list[np.ndarray] = []
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

    def _observed(self, *frames: np.ndarray) -> np.ndarray:
        if self._resize is None:
            return frames[-1]
        return self._resize(np.maximum(frames[0], frames[-1]))

    def _new_game(
        self, seed: int | None, options: dict[str, Any] | None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        frame, info = self.env.reset(seed=seed, options=options)
        idle = int(self._noops.integers(1, self._noop_max + 1)) if self._noop_max else 0
        for _ in range(idle):
            frame, _, terminated, truncated, info = self.env.step(self._noop)
            if terminated or truncated:
                frame, info = self.env.reset(options=options)
        return frame, info
