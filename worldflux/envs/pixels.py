"""Pixels as observations: frames drawn, resized by area, and stacked."""

from __future__ import annotations

import dataclasses
from collections import deque
from typing import Any, TypeGuard

import gymnasium
import numpy as np
from gymnasium import Env, spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from worldflux.errors import EnvironmentSetupError

from .images import ImageSpace, channel_axis, channels_first, is_image
from .leaves import leaf_values, leaves, name_of
from .returned import BadValue, number, values_of

Frame = NDArray[np.uint8]
Told = tuple[Any, Any, Any, Any, dict[str, Any]]


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
        self.old = old
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
        self.observation_space = ImageSpace((*size, 3), 2)

    def reset(self, **kwargs: Any) -> tuple[Frame, dict[str, Any]]:
        _, info = values_of("reset", self.env.reset(**kwargs), 2)
        return self._frame(), info

    def step(self, action: Any) -> Told:
        _, *told = values_of("step", self.env.step(action), 5)
        return self._frame(), *told

    def _frame(self) -> Frame:
        frame: Any = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or not frame.size:
            shape = f" of shape {frame.shape}" if isinstance(frame, np.ndarray) else ""
            problem = f"returned a {type(frame).__name__}{shape}, expected a frame [H, W, 3]"
            raise BadValue(0, "render", problem, "leave out environment_kwargs.pixels")
        drawn = (frame.shape[0], frame.shape[1])
        if self._resize is None or self._resize.old != drawn:
            self._resize = AreaResizer(drawn, self._size)
        return self._resize(frame[..., :3])


class ImageWrapper(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Changes every image of the observations; of a Dict or Tuple, the parts are then named.

    Args:
        asked: the key under [environment_kwargs], for messages.

    Raises:
        EnvironmentSetupError: when the environment observes no image.
    """

    def __init__(self, env: Env, asked: str) -> None:
        super().__init__(env)
        self._declared = env.observation_space
        found = {name_of(path): leaf for path, leaf in leaves(self._declared)}
        self._images = {name: leaf for name, leaf in found.items() if _may_be_image(leaf)}
        if not self._images:
            draws = "rgb_array" in env.metadata.get("render_modes", ())
            instead = ", or set environment_kwargs.pixels = true to observe what it draws"
            raise EnvironmentSetupError(
                f"environment_kwargs.{asked} needs images; observed is {self._declared}",
                hint=f"leave out environment_kwargs.{asked}{instead if draws else ''}",
            )
        for name, image in self._images.items():
            found[name] = self.space_of(name, image)
        self.observation_space = found.get("", spaces.Dict(found))

    def space_of(self, name: str, image: spaces.Box) -> spaces.Space:
        """The space of the changed image `name`."""
        raise NotImplementedError

    def change(self, name: str, image: NDArray[Any]) -> NDArray[Any]:
        """The changed image `name`."""
        raise NotImplementedError

    def observation(self, observation: Any) -> Any:
        """The observation with its images changed."""
        values = dict(leaf_values(self._declared, observation))
        for name, space in self._images.items():
            image = np.asarray(values[name])
            if image.shape != space.shape:
                key = f"observation[{name!r}]" if name else "observation"
                raise BadValue(0, key, f"has shape {image.shape}, expected {space.shape}")
            values[name] = self.change(name, image)
        return values.get("", values)


class ResizedImage(ImageWrapper):
    """Images of another size, resized by area; the channel axis stays.

    Bits become bytes, every other dtype stays.

    Args:
        size: (height, width).

    Raises:
        EnvironmentSetupError: when the environment observes no image.
    """

    def __init__(self, env: Env, size: tuple[int, int]) -> None:
        self._size = size
        self._resizers: dict[str, tuple[AreaResizer, bool]] = {}
        super().__init__(env, "image_size")

    def space_of(self, name: str, image: spaces.Box) -> spaces.Space:
        axis = channel_axis(image)
        height, width = image.shape[1:] if axis == 0 else image.shape[:2]
        self._resizers[name] = AreaResizer((height, width), self._size), axis == 0
        channels = () if axis is None else (image.shape[axis],)
        shape = (*channels, *self._size) if axis == 0 else (*self._size, *channels)
        return ImageSpace(shape, axis, None if image.dtype == np.bool_ else image)

    def change(self, name: str, image: NDArray[Any]) -> NDArray[Any]:
        resize, is_channels_first = self._resizers[name]
        if image.dtype == np.bool_:
            image = image * np.uint8(255)
        if is_channels_first:
            return np.moveaxis(resize(np.moveaxis(image, 0, 2)), 2, 0)
        return resize(image)


class StackedFrames(ImageWrapper):
    """The last `count` frames on the channel axis, oldest first: `[count * C, H, W]`.

    At the beginning of an episode the first frame is there `count` times, as in TD-MPC2.

    Raises:
        EnvironmentSetupError: when the environment observes no image.
    """

    def __init__(self, env: Env, count: int) -> None:
        self._count = count
        self._frames: dict[str, deque[NDArray[Any]]] = {}
        super().__init__(env, "frame_stack")

    def space_of(self, name: str, image: spaces.Box) -> spaces.Space:
        self._frames[name] = deque(maxlen=self._count)
        channels, height, width = channels_first(image, np.empty(image.shape, bool)).shape
        return ImageSpace((self._count * channels, height, width), 0, image)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        for frames in self._frames.values():
            frames.clear()
        return super().reset(**kwargs)

    def change(self, name: str, image: NDArray[Any]) -> NDArray[Any]:
        frames = self._frames[name]
        # A copy: the environment may draw into the same buffer again.
        frame = np.array(channels_first(self._images[name], image))
        frames.extend([frame] * (1 if frames else self._count))
        return np.concatenate(frames)


class RepeatedAction(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Every action is taken `repeat` times; rewards are summed, an end breaks off the repeats."""

    def __init__(self, env: Env, repeat: int) -> None:
        super().__init__(env)
        self._repeat = repeat
        fps = env.metadata.get("render_fps")
        if isinstance(fps, (int, float)):  # frames are drawn once an agent step
            self.metadata = {**env.metadata, "render_fps": fps / repeat}

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
            obs, reward, terminated, truncated, info = values_of("step", self.env.step(action), 5)
            total += number(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


def _may_be_image(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """Whether a space is an image, or a matrix that one may have been asked of."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 2:
        return is_image(space)
    return is_image(spaces.Box(space.low[..., None], space.high[..., None], dtype=space.dtype))
