"""Observations, checked against their spaces and encoded as images and vectors.

Images become uint8 `[C, H, W]`, everything else a float32 vector: Discrete one-hot, MultiDiscrete
one-hots side by side, MultiBinary 0 and 1. The parts of Dict and Tuple spaces are named
"outer/inner".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvironmentSetupError

from .faults import FLOAT32_MAX, Failure
from .spaces import (
    MAX_CLASSES,
    channels_first,
    is_image,
    label,
    leaf_values,
    leaves,
    name_of,
    named_leaves,
    observation_advice,
)

BOUND_SLACK = 1e-3  # of the range (or of the bound): float32 rounding is no fault
BOUNDS_HINT = (
    "correct the bounds of observation_space, or accept such values: "
    "worldflux train --set online_collection.check_bounds=false"
)


class ObservationReader:
    """Checks and encodes observations of a Box, Discrete, MultiDiscrete or MultiBinary space, or of
    a Dict or Tuple of them.

    With `check_bounds` a Box value outside its declared bounds is a fault. `shapes` are the encoded
    ones by name; the name is "" where the space is no Dict or Tuple.
    """

    def __init__(self, env_id: str, space: spaces.Space, *, check_bounds: bool = True) -> None:
        self._space = space
        self._leaves = named_leaves(space)
        if not self._leaves:
            raise EnvironmentSetupError(f"{env_id} observes an empty {type(space).__name__} space")
        _refuse_space(env_id, space)
        self.shapes = {name: _encoded_shape(leaf) for name, leaf in self._leaves.items()}
        self._images = {name for name, leaf in self._leaves.items() if is_image(leaf)}
        self._bounds = {
            name: _bounds(leaf) if check_bounds else None for name, leaf in self._leaves.items()
        }

    def read(self, obs: Any, count: int) -> dict[str, np.ndarray]:
        """`count` raw observations `[N, ...]`, encoded `[N, ...]` by name, or Failure."""
        return {
            name: self._encoded(name, value, count) for name, value in leaf_values(self._space, obs)
        }

    def read_one(self, obs: Any) -> dict[str, np.ndarray]:
        """One environment's raw observation, encoded `[1, ...]` by name, or Failure."""
        encoded = {}
        for name, value in leaf_values(self._space, obs):
            try:
                array = np.asarray(value)[None]
            except Exception as error:  # rows of several lengths, a tensor with a gradient
                raise Failure(0, label(name), f"is no array: {error}") from None
            encoded[name] = self._encoded(name, array, 1)
        return encoded

    def _encoded(self, name: str, value: Any, count: int) -> np.ndarray:
        space, key, bounds = self._leaves[name], label(name), self._bounds[name]
        checked = _checked(key, space, value, count)
        if bounds is not None:
            outside = (checked < bounds[0]) | (checked > bounds[1])
            _refuse(key, checked, outside, "is outside its declared bounds", BOUNDS_HINT)
        if isinstance(space, spaces.Box) and name in self._images:
            return _pixels(key, space, checked)
        if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
            return _one_hot(space, checked)
        return checked.reshape(count, *self.shapes[name]).astype(np.float32)


def _refuse_space(env_id: str, space: spaces.Space) -> None:
    """Raise for the first part that is not supported, with what changes the whole space."""
    problems: dict[tuple[str | int, ...], str] = {}
    names: set[str] = set()
    for path, leaf in leaves(space):
        problem = _problem(leaf)
        if name_of(path) in names:
            problem = "has the name of another part"
        names.add(name_of(path))
        if problem is not None:
            problems[path] = problem
    if problems:
        path, problem = next(iter(problems.items()))
        part = f" (observation {name_of(path)!r})" if path else ""
        hint = observation_advice(space, set(problems))
        raise EnvironmentSetupError(f"{env_id}{part} {problem}", hint=hint)


def _problem(space: spaces.Space) -> str | None:
    """Why a space is not supported, if so."""
    if isinstance(space, spaces.Box):
        if 0 in space.shape:
            return f"is a Box of shape {space.shape}, which holds nothing"
        if len(space.shape) > 2 and not is_image(space):
            return (
                f"is a {space.dtype} Box of shape {space.shape}; worldflux takes images (whole "
                "numbers of 0 to 255, or floats with the bounds 0 and 1) of shape (H, W, C) or "
                "(C, H, W), and vectors"
            )
        return None
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        width = int(_classes(space).sum())
        if width > MAX_CLASSES:
            return f"has {width} classes; a one-hot observation has at most {MAX_CLASSES}"
        return None
    if isinstance(space, spaces.MultiBinary):
        return None
    return (
        f"is a {type(space).__name__} space; worldflux takes Box, Discrete, MultiDiscrete and "
        "MultiBinary observations, and Dicts and Tuples of them"
    )


def _encoded_shape(space: spaces.Space) -> tuple[int, ...]:
    if is_image(space):
        return channels_first(space, np.empty(space.shape, bool)).shape
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return (int(_classes(space).sum()),)
    return (int(np.prod(space.shape or ())),)


def _classes(space: spaces.Discrete | spaces.MultiDiscrete) -> np.ndarray:
    return np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)


def _checked(key: str, space: spaces.Space, value: Any, count: int) -> np.ndarray:
    """The value as an array `[N, *space.shape]` that is what the space declares."""
    array = np.asarray(value)
    expected = tuple(space.shape or ())
    if array.shape != (count, *expected):
        raise Failure(0, key, f"has shape {array.shape[1:]}, expected {expected}")
    assert space.dtype is not None
    if array.dtype.kind not in "biuf" or not np.can_cast(array.dtype, space.dtype, "same_kind"):
        raise Failure(0, key, f"has dtype {array.dtype}, expected {space.dtype}")
    if array.dtype.kind == "f":
        _refuse(key, array, ~np.isfinite(array), "is not finite")
        if array.dtype.itemsize > 4:
            _refuse(key, array, abs(array) > FLOAT32_MAX, "does not fit float32")
    if isinstance(space, spaces.MultiBinary):
        _refuse(key, array, (array < 0) | (array > 1), "is neither 0 nor 1")
    elif isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        low = np.asarray(space.start)
        high = low + _classes(space).reshape(expected) - 1
        _refuse(key, array, (array < low) | (array > high), f"is outside {space}")
    return array


def _bounds(space: spaces.Space) -> tuple[np.ndarray, np.ndarray] | None:
    """Bounds of a Box with some slack; None where nothing can be outside."""
    if not isinstance(space, spaces.Box) or space.dtype in (np.uint8, np.bool_):
        return None
    if not (space.bounded_below.any() or space.bounded_above.any()):
        return None
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    width = np.where(space.bounded_below & space.bounded_above, high - low, 1.0)
    slack_low = np.where(space.bounded_below, np.maximum(width, np.abs(low)), 0.0)
    slack_high = np.where(space.bounded_above, np.maximum(width, np.abs(high)), 0.0)
    return low - BOUND_SLACK * slack_low, high + BOUND_SLACK * slack_high


def _refuse(
    key: str, array: np.ndarray, bad: np.ndarray, problem: str, hint: str | None = None
) -> None:
    if not bad.any():
        return
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    at = f" at {list(where[1:])}" if len(where) > 1 else ""
    raise Failure(where[0], key, f"{problem}: {array[where]}{at}", hint)


def _pixels(key: str, space: spaces.Box, array: np.ndarray) -> np.ndarray:
    assert space.dtype is not None
    if array.dtype == np.uint8 == space.dtype:
        pass
    elif space.dtype.kind == "b":
        array = array * np.uint8(255)
    else:
        scale = 255.0 if space.dtype.kind == "f" else 1.0  # floats are shares of 1
        scaled = np.rint(array * scale)
        _refuse(key, array, (scaled < 0) | (scaled > 255), "is no pixel of its space")
        array = scaled
    return np.ascontiguousarray(channels_first(space, array), np.uint8)


def _one_hot(space: spaces.Discrete | spaces.MultiDiscrete, array: np.ndarray) -> np.ndarray:
    widths = _classes(space)
    index = (array - np.asarray(space.start)).reshape(len(array), -1).astype(np.int64)
    rows = np.zeros((len(array), int(widths.sum())), np.float32)
    offsets = np.concatenate([[0], np.cumsum(widths)[:-1]])
    rows[np.arange(len(array))[:, None], index + offsets] = 1.0
    return rows
