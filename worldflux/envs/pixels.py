"""Pixels as observations: frames drawn, resized by area, and stacked."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env, spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from worldflux.errors import EnvironmentSetupError

Frame = NDArray[np.uint8]
Told = tuple[Any, float, bool, bool, dict[str, Any]]


def area_weights(old: int, new: int) -> NDArray[np.float32]:
    """`[new, old]`: the share of each old pixel in each new one; every row sums to 1."""
    edges = np.linspace(0, old, new + 1)
    starts = np.maximum(edges[:-1, None], np.arange(old)[None, :])
    ends = np.minimum(edges[1:, None], np.arange(1, old + 1)[None, :])
    return (np.clip(ends - starts, 0.0, None) * (new / old)).astype(np.float32)


class AreaResizer:
    """Resizes images `[H, W]` or `[H, W, C]` of one size; each new pixel is the mean of its area.

    uint8 stays uint8 (rounded to the nearest), floats stay floats of their dtype.
    """

    def __init__(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        self.size = new
        self._same = tuple(old) == tuple(new)
        self._rows, self._columns = area_weights(old[0], new[0]), area_weights(old[1], new[1])

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        if self._same:
            return image
        narrow = np.tensordot(self._rows, image.astype(np.float32), axes=(1, 0))
        small = np.moveaxis(np.tensordot(self._columns, narrow, axes=(1, 1)), 0, 1)
        if image.dtype.kind in "iu":
            small = np.rint(small)
        return np.ascontiguousarray(small, image.dtype)


class RenderedPixels(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The frame that the environment draws is its observation: uint8 `[H, W, 3]`.

    Args:
        env: made with render_mode "rgb_array".
        size: (height, width) that frames are resized to.
    """

    def __init__(self, env: Env, size: tuple[int, int]) -> None:
        super().__init__(env)
        self._size = size
        self._resize: AreaResizer | None = None
        self.observation_space = spaces.Box(0, 255, (*size, 3), np.uint8)

    def reset(self, **kwargs: Any) -> tuple[Frame, dict[str, Any]]:
        _, info = self.env.reset(**kwargs)
        return self._frame(), info

    def step(self, action: Any) -> Told:
        _, reward, terminated, truncated, info = self.env.step(action)
        return self._frame(), float(reward), terminated, truncated, info

    def _frame(self) -> Frame:
        frame: Any = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3:
            raise EnvironmentSetupError(
                f"{self.env} draws no RGB frame; environment_kwargs.pixels needs one"
            )
        if self._resize is None:
            self._resize = AreaResizer((frame.shape[0], frame.shape[1]), self._size)
        return self._resize(frame[..., :3])


class ResizedImage(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Image observations `[H, W]` or `[H, W, C]` of another size; the dtype stays.

    Raises:
        EnvironmentSetupError: when the environment observes no image.
    """

    def __init__(self, env: Env, size: tuple[int, int]) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or len(space.shape) not in (2, 3):
            raise EnvironmentSetupError(
                f"environment_kwargs.image_size needs an image; {env} observes {space}",
                hint="set environment_kwargs.pixels = true to observe what it draws",
            )
        self._resize = AreaResizer((space.shape[0], space.shape[1]), size)
        shape = (*size, *space.shape[2:])
        low, high = float(space.low.min()), float(space.high.max())
        self.observation_space = spaces.Box(low, high, shape, space.dtype)

    def observation(self, observation: NDArray[Any]) -> NDArray[Any]:
        return self._resize(observation)


class StackedFrames(gymnasium.Wrapper[Any, Any, Any, Any]):
    """The last `count` frames on the channel axis, oldest first: uint8 `[count * C, H, W]`.

    At the beginning of an episode the first frame stands `count` times (TD-MPC2, spec 1.3).

    Raises:
        EnvironmentSetupError: when the environment observes no uint8 images.
    """

    def __init__(self, env: Env, count: int) -> None:
        super().__init__(env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or len(space.shape) != 3:
            raise EnvironmentSetupError(
                f"environment_kwargs.frame_stack needs uint8 images; {env} observes {space}",
                hint="set environment_kwargs.pixels = true to observe what it draws",
            )
        height, width, channels = space.shape
        self._frames: deque[Frame] = deque(maxlen=count)
        self.observation_space = spaces.Box(0, 255, (count * channels, height, width), np.uint8)

    def reset(self, **kwargs: Any) -> tuple[Frame, dict[str, Any]]:
        frame, info = self.env.reset(**kwargs)
        self._frames.extend([frame] * (self._frames.maxlen or 1))
        return self._stack(), info

    def step(self, action: Any) -> Told:
        frame, reward, terminated, truncated, info = self.env.step(action)
        self._frames.append(frame)
        return self._stack(), float(reward), terminated, truncated, info

    def _stack(self) -> Frame:
        return np.concatenate([frame.transpose(2, 0, 1) for frame in self._frames])


class RepeatedAction(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Every action is taken `repeat` times; rewards are summed, an end breaks off the repeats."""

    def __init__(self, env: Env, repeat: int) -> None:
        super().__init__(env)
        self._repeat = repeat

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        """The inner spec, its time limit in agent steps."""
        inner = self.env.spec
        if inner is None or inner.max_episode_steps is None:
            return inner
        return dataclasses.replace(
            inner, max_episode_steps=-(-inner.max_episode_steps // self._repeat)
        )

    def step(self, action: Any) -> Told:
        total = 0.0
        for _ in range(self._repeat):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += float(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info
