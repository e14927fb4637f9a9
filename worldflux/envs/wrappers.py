"""What worldflux does around an environment: pixels, sizes, stacked frames, repeated actions."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

import gymnasium
import numpy as np
from gymnasium import Env, spaces
from gymnasium.envs.registration import EnvSpec

from worldflux.errors import EnvironmentSetupError

from .action_mask import InfoActionMask
from .faults import Failure, checked_environment, number, values_of
from .spaces import (
    ImageSpace,
    channel_axis,
    channels_first,
    is_image,
    label,
    leaf_values,
    named_leaves,
)

IMAGE_SIZE = (64, 64)


@dataclass(frozen=True)
class Preparation:
    """What worldflux does around an environment; the arguments next to its own, checked.

    Attributes:
        pixels: observe what it draws.
        image_size: (height, width) of image observations, resized by area, or the side of a square;
            None leaves them.
        frame_stack: frames on the channel axis.
        action_repeat: steps of one action; None is the namespace's (`namespaces.py`).
        action_mask: observe `info["action_mask"]`, which allows discrete actions.
    """

    pixels: bool = False
    image_size: tuple[int, int] | None = None
    frame_stack: int = 1
    action_repeat: int | None = None
    action_mask: bool = False

    def __post_init__(self) -> None:
        for name in ("pixels", "action_mask"):
            if type(getattr(self, name)) is not bool:
                raise _refused(name, getattr(self, name), "true or false")
        if self.image_size is not None:
            size: Any = self.image_size
            pair = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
            if len(pair) != 2 or not all(map(_is_count, pair)):
                raise _refused("image_size", size, "a side, or [height, width]")
            object.__setattr__(self, "image_size", pair)
        for name in ("frame_stack", "action_repeat"):
            value = getattr(self, name)
            if not _is_count(value) and (name == "frame_stack" or value is not None):
                raise _refused(name, value, "a whole number of at least 1")

    def apply(self, env: Env) -> Env:
        if self.action_repeat is not None and self.action_repeat > 1:
            env = RepeatedAction(env, self.action_repeat)
        if self.pixels:
            return RenderedPixels(env, self.image_size or IMAGE_SIZE)
        return env if self.image_size is None else ResizedImage(env, self.image_size)

    def stack(self, env: Env) -> Env:
        if self.frame_stack > 1:
            env = StackedFrames(env, self.frame_stack)
        return InfoActionMask(env) if self.action_mask else env


PREPARATIONS = tuple(Preparation.__dataclass_fields__)


def prepared_environment(
    build: Callable[[str | None], Env], render_mode: str | None, **arguments: Any
) -> Env:
    """An environment that `build` makes for a render_mode, prepared as `make_environment` does."""
    prepared = Preparation(**arguments)
    env = checked_environment(build("rgb_array" if prepared.pixels else render_mode))
    return prepared.stack(prepared.apply(env))


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _refused(name: str, value: Any, expected: str) -> EnvironmentSetupError:
    return EnvironmentSetupError(f"environment_kwargs.{name} = {value!r}: expected {expected}")


# --------------------------------------------------------------------------- pixels


def area_weights(old: int, new: int) -> np.ndarray:
    """`[new, old]`: the share of each old pixel in each new one; every row sums to 1."""
    edges = np.linspace(0, old, new + 1)
    starts = np.maximum(edges[:-1, None], np.arange(old)[None, :])
    ends = np.minimum(edges[1:, None], np.arange(1, old + 1)[None, :])
    return (np.clip(ends - starts, 0.0, None) * (new / old)).astype(np.float32)


class AreaResizer:
    """Resizes images `[H, W]` or `[H, W, C]` of one size; a new pixel is the mean of its area."""

    def __init__(self, old: tuple[int, int], new: tuple[int, int]) -> None:
        self.old = old
        self._same = tuple(old) == tuple(new)
        self._rows, self._columns = area_weights(old[0], new[0]), area_weights(old[1], new[1])

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if self._same:
            return image
        narrow = np.tensordot(self._rows, image.astype(np.float32), axes=(1, 0))
        small = np.moveaxis(np.tensordot(self._columns, narrow, axes=(1, 1)), 0, 1)
        if image.dtype.kind in "iu":
            small = np.rint(small)
        return np.ascontiguousarray(small, image.dtype)


class RenderedPixels(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Observes the drawn frame, uint8 `[H, W, 3]`, resized to `size` (height, width)."""

    def __init__(self, env: Env, size: tuple[int, int]) -> None:
        super().__init__(env)
        self._size = size
        self._resize: AreaResizer | None = None
        self.observation_space = ImageSpace((*size, 3), 2)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        _, info = values_of("reset", self.env.reset(**kwargs), 2)
        return self._frame(), info

    def step(self, action: Any) -> Any:
        _, *others = values_of("step", self.env.step(action), 5)
        return self._frame(), *others

    def _frame(self) -> np.ndarray:
        frame: Any = self.env.render()
        if not isinstance(frame, np.ndarray) or frame.ndim != 3 or not frame.size:
            shape = f" of shape {frame.shape}" if isinstance(frame, np.ndarray) else ""
            problem = f"returned a {type(frame).__name__}{shape}, expected a frame [H, W, 3]"
            raise Failure(0, "render", problem, "leave out environment_kwargs.pixels")
        drawn = (frame.shape[0], frame.shape[1])
        if self._resize is None or self._resize.old != drawn:
            self._resize = AreaResizer(drawn, self._size)
        return self._resize(frame[..., :3])


# --------------------------------------------------------------------------- images


class ImageWrapper(gymnasium.ObservationWrapper[Any, Any, Any], ABC):
    """Changes every image of the observations; of a Dict or Tuple, the parts are then named."""

    def __init__(self, env: Env, key: str) -> None:
        super().__init__(env)
        self._declared = env.observation_space
        found = named_leaves(self._declared)
        self._images = {name: leaf for name, leaf in found.items() if _may_be_image(leaf)}
        if not self._images:
            draws = "rgb_array" in env.metadata.get("render_modes", ())
            instead = ", or set environment_kwargs.pixels = true to observe what it draws"
            raise EnvironmentSetupError(
                f"environment_kwargs.{key} needs images; observed is {self._declared}",
                hint=f"leave out environment_kwargs.{key}{instead if draws else ''}",
            )
        for name, image in self._images.items():
            found[name] = self.space_of(name, image)
        self.observation_space = found.get("", spaces.Dict(found))

    @abstractmethod
    def space_of(self, name: str, image: spaces.Box) -> spaces.Space:
        """The space of the changed images."""

    @abstractmethod
    def change(self, name: str, image: np.ndarray) -> np.ndarray:
        """The changed image."""

    def observation(self, observation: Any) -> Any:
        values = dict(leaf_values(self._declared, observation))
        for name, space in self._images.items():
            image = np.asarray(values[name])
            if image.shape != space.shape:
                problem = f"has shape {image.shape}, expected {space.shape}"
                raise Failure(0, label(name), problem)
            values[name] = self.change(name, image)
        return values.get("", values)


class ResizedImage(ImageWrapper):
    """Images resized by area to `size` (height, width); bits become bytes, other dtypes stay."""

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

    def change(self, name: str, image: np.ndarray) -> np.ndarray:
        resize, is_channels_first = self._resizers[name]
        if image.dtype == np.bool_:
            image = image * np.uint8(255)
        if is_channels_first:
            return np.moveaxis(resize(np.moveaxis(image, 0, 2)), 2, 0)
        return resize(image)


class StackedFrames(ImageWrapper):
    """The last `count` frames on the channel axis, oldest first: `[count * C, H, W]`; an episode
    begins with its first frame repeated, as in TD-MPC2."""

    def __init__(self, env: Env, count: int) -> None:
        self._count = count
        self._frames: dict[str, deque[np.ndarray]] = {}
        super().__init__(env, "frame_stack")

    def space_of(self, name: str, image: spaces.Box) -> spaces.Space:
        self._frames[name] = deque(maxlen=self._count)
        channels, height, width = channels_first(image, np.empty(image.shape, bool)).shape
        return ImageSpace((self._count * channels, height, width), 0, image)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        for frames in self._frames.values():
            frames.clear()
        return super().reset(**kwargs)

    def change(self, name: str, image: np.ndarray) -> np.ndarray:
        frames = self._frames[name]
        # A copy: the environment may draw into the same buffer again.
        frame = np.array(channels_first(self._images[name], image))
        frames.extend([frame] * (1 if frames else self._count))
        return np.concatenate(frames)


def _may_be_image(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """Whether a space is an image, or a matrix that the user may want to be one."""
    if not isinstance(space, spaces.Box) or len(space.shape) != 2:
        return is_image(space)
    return is_image(spaces.Box(space.low[..., None], space.high[..., None], dtype=space.dtype))


# --------------------------------------------------------------------------- actions


class RepeatedAction(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Takes every action `repeat` times; rewards are summed, an end breaks off the repeats."""

    def __init__(self, env: Env, repeat: int) -> None:
        super().__init__(env)
        self._repeat = repeat
        fps = env.metadata.get("render_fps")
        if isinstance(fps, (int, float)):  # frames are drawn once an agent step
            self.metadata = {**env.metadata, "render_fps": fps / repeat}

    @property
    def spec(self) -> EnvSpec | None:  # type: ignore[override]
        inner = self.env.spec
        if inner is None or inner.max_episode_steps is None:
            return inner
        limit = -(-inner.max_episode_steps // self._repeat)
        return dataclasses.replace(inner, max_episode_steps=limit)

    def step(self, action: Any) -> Any:
        total = 0.0
        for _ in range(self._repeat):
            obs, reward, terminated, truncated, info = values_of("step", self.env.step(action), 5)
            total += number(reward)
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info
