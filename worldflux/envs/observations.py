"""What environments observe, checked against their word and turned into images and vectors.

Images become uint8 `[C, H, W]`, everything else a float32 vector: Discrete one-hot, MultiDiscrete
one-hots side by side, MultiBinary 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldflux.errors import EnvironmentSetupError

from .advice import MAX_CLASSES

Array = NDArray[Any]

SMALLEST_IMAGE = 16  # sides; a smaller uint8 matrix is a board, and is read as a vector
BOUND_SLACK = 1e-3  # of the range (or of the bound): float32 rounding is no fault


class BadValue(Exception):
    """A value that breaks the environment's word: row of the batch, key, and what is wrong."""

    def __init__(self, row: int, key: str, problem: str) -> None:
        super().__init__(row, key, problem)
        self.row, self.key, self.problem = row, key, problem


class ObservationReader:
    """Checks and encodes the observations of one space.

    Args:
        env_id: name for messages.
        space: a Box, Discrete, MultiDiscrete or MultiBinary space, or a Dict of them.
        check_bounds: whether a Box value outside its declared bounds is a fault.

    Attributes:
        shapes: name -> encoded shape; the name is "" where the space is no Dict.

    Raises:
        EnvironmentSetupError: for a space that has no contract here.
    """

    def __init__(self, env_id: str, space: spaces.Space, *, check_bounds: bool = True) -> None:
        self._named = isinstance(space, spaces.Dict)
        self._spaces = dict(space.spaces) if isinstance(space, spaces.Dict) else {"": space}
        self._bounds = {
            name: _bounds(leaf) if isinstance(leaf, spaces.Box) and check_bounds else None
            for name, leaf in self._spaces.items()
        }
        if not self._spaces:
            raise EnvironmentSetupError(f"{env_id} observes an empty Dict space")
        self.shapes = {
            name: _encoded_shape(_label(env_id, name), leaf) for name, leaf in self._spaces.items()
        }

    def read(self, obs: Any, count: int) -> dict[str, Array]:
        """A batch of `count` raw observations `[N, ...]`, encoded `[N, ...]` by name.

        Raises:
            BadValue: for the first value that is not what the space promises.
        """
        if self._named:
            if not isinstance(obs, Mapping):
                raise BadValue(0, "observation", f"is a {type(obs).__name__}, expected a dict")
            absent = self._spaces.keys() ^ obs.keys()
            if absent:
                raise BadValue(
                    0, "observation", f"has keys {sorted(obs)}, expected {sorted(self._spaces)}"
                )
        values = obs if self._named else {"": obs}
        encoded = {}
        for name, space in self._spaces.items():
            key = f"observation[{name!r}]" if self._named else "observation"
            checked = _checked(key, space, values[name], count)
            bounds = self._bounds[name]
            if bounds is not None:
                outside = (checked < bounds[0]) | (checked > bounds[1])
                _refuse(key, checked, outside, "is outside its declared bounds")
            encoded[name] = _encoded(space, checked, self.shapes[name])
        return encoded


def single(obs: Any) -> Any:
    """One environment's raw observation as a batch of one."""
    if isinstance(obs, Mapping):
        return {name: single(value) for name, value in obs.items()}
    try:
        return np.asarray(obs)[None]
    except ValueError as error:  # rows of several lengths
        raise BadValue(0, "observation", f"is no array: {error}") from None


def is_channels_last(space: spaces.Box) -> bool:
    """Whether values are images of shape (H, W, C)."""
    return len(space.shape) == 3 and space.shape[-1] in (1, 3, 4)


# --------------------------------------------------------------------------- layout


def _label(env_id: str, name: str) -> str:
    return f"{env_id} (observation {name!r})" if name else env_id


def _encoded_shape(label: str, space: spaces.Space) -> tuple[int, ...]:
    if isinstance(space, spaces.Box):
        return _box_shape(label, space)
    if isinstance(space, spaces.MultiBinary):
        return (int(np.prod(space.shape)),)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        width = int(_classes(space).sum())
        if width > MAX_CLASSES:
            raise EnvironmentSetupError(
                f"{label} has {width} classes; a one-hot observation has at most {MAX_CLASSES}",
                hint="observe a Box of fewer numbers in make_env of dataset.py",
            )
        return (width,)
    raise EnvironmentSetupError(
        f"{label} is a {type(space).__name__} space; worldflux takes Box, Discrete, MultiDiscrete "
        "and MultiBinary observations, and one Dict of them",
        hint="wrap it with gymnasium.wrappers.FlattenObservation in make_env of dataset.py",
    )


def _box_shape(label: str, space: spaces.Box) -> tuple[int, ...]:
    shape = tuple(int(size) for size in space.shape)
    if len(shape) == 2 and space.dtype == np.uint8 and min(shape) >= SMALLEST_IMAGE:
        return (1, *shape)
    if len(shape) > 3 or (len(shape) == 3 and not _is_image(space)):
        raise EnvironmentSetupError(
            f"{label} is a {space.dtype} Box of shape {shape}; worldflux takes images (uint8, or "
            "float with the bounds 0 and 1) of shape (H, W, C) or (C, H, W), and vectors",
            hint="wrap it with gymnasium.wrappers.TransformObservation in make_env of dataset.py",
        )
    if len(shape) == 3:
        return (shape[2], *shape[:2]) if is_channels_last(space) else shape
    return (int(np.prod(shape)) or 1,)


def _is_image(space: spaces.Box) -> bool:
    return space.dtype == np.uint8 or _is_unit_image(space)


def _is_unit_image(space: spaces.Box) -> bool:
    bounded = bool((space.low == 0).all() and (space.high == 1).all())
    return space.dtype.kind == "f" and bounded


def _classes(space: spaces.Discrete | spaces.MultiDiscrete) -> Array:
    return np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)


# --------------------------------------------------------------------------- values


def _checked(key: str, space: spaces.Space, value: Any, count: int) -> Array:
    """The value as an array `[N, *space.shape]` that keeps the space's word."""
    array = np.asarray(value)
    expected = tuple(space.shape or ())
    if array.shape != (count, *expected):
        raise BadValue(0, key, f"has shape {array.shape[1:]}, expected {expected}")
    assert space.dtype is not None
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, space.dtype, "same_kind"):
        raise BadValue(0, key, f"has dtype {array.dtype}, expected {space.dtype}")
    if array.dtype.kind == "f":
        _refuse(key, array, ~np.isfinite(array), "is not finite")
    if isinstance(space, spaces.MultiBinary):
        _refuse(key, array, (array < 0) | (array > 1), "is neither 0 nor 1")
    elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        low = np.asarray(space.start)
        high = low + _classes(space).reshape(expected) - 1
        _refuse(key, array, (array < low) | (array > high), f"is outside {space}")
    return array


def _bounds(space: spaces.Box) -> tuple[Array, Array] | None:
    """Bounds with some slack; None where nothing can be outside."""
    if space.dtype == np.uint8 or not (space.bounded_below.any() or space.bounded_above.any()):
        return None
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    width = np.where(space.bounded_below & space.bounded_above, high - low, 1.0)
    slack_low = np.where(space.bounded_below, np.maximum(width, np.abs(low)), 0.0)
    slack_high = np.where(space.bounded_above, np.maximum(width, np.abs(high)), 0.0)
    return low - BOUND_SLACK * slack_low, high + BOUND_SLACK * slack_high


def _refuse(key: str, array: Array, bad: Array, problem: str) -> None:
    if not bad.any():
        return
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    at = f" at {list(where[1:])}" if len(where) > 1 else ""
    raise BadValue(where[0], key, f"{problem}: {array[where]}{at}")


def _encoded(space: spaces.Space, array: Array, shape: tuple[int, ...]) -> Array:
    count = len(array)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return _one_hot(space, array)
    if len(shape) != 3:
        return array.reshape(count, *shape).astype(np.float32)
    assert isinstance(space, spaces.Box)
    if array.dtype.kind == "f":
        array = np.rint(array * 255.0)
    if is_channels_last(space):
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array.reshape(count, *shape), np.uint8)


def _one_hot(space: spaces.Discrete | spaces.MultiDiscrete, array: Array) -> Array:
    widths = _classes(space)
    index = (array - np.asarray(space.start)).reshape(len(array), -1).astype(np.int64)
    rows = np.zeros((len(array), int(widths.sum())), np.float32)
    offsets = np.concatenate([[0], np.cumsum(widths)[:-1]])
    rows[np.arange(len(array))[:, None], index + offsets] = 1.0
    return rows
