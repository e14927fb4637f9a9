"""Spaces as JSON and back, so that a run says what its agent takes and gives without its
environment. Bounds are one number where all are equal; null is no bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces

from .spaces import ImageSpace, parts

Record = dict[str, Any]


def space_record(space: spaces.Space) -> Record:
    """A space that worldflux supports, as values of JSON."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        inner = [[name, space_record(part)] for name, part in parts(space)]
        return {"type": "Dict" if isinstance(space, spaces.Dict) else "Tuple", "parts": inner}
    record: Record = {"dtype": str(space.dtype), "shape": list(space.shape or ())}
    if isinstance(space, spaces.Box):
        bounds = {"low": _bounds(space.low), "high": _bounds(space.high)}
        if isinstance(space, ImageSpace):
            return {"type": "ImageSpace", **record, **bounds, "channel_axis": space.channel_axis}
        return {"type": "Box", **record, **bounds}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", **record, "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        numbers = {"nvec": space.nvec.tolist(), "start": space.start.tolist()}
        return {"type": "MultiDiscrete", **record, **numbers}
    assert isinstance(space, spaces.MultiBinary)
    return {"type": "MultiBinary", **record, "n": space.n}


def space_of(record: Record) -> spaces.Space:
    """The space of a `space_record`; ValueError, KeyError or TypeError where it is none."""
    kind = record["type"]
    if kind in ("Dict", "Tuple"):
        inner = [(name, space_of(part)) for name, part in record["parts"]]
        return spaces.Dict(inner) if kind == "Dict" else spaces.Tuple([part for _, part in inner])
    dtype: Any = np.dtype(record["dtype"])
    shape = tuple(record["shape"])
    if kind in ("Box", "ImageSpace"):
        low = _array(record["low"], shape, dtype, -math.inf)
        high = _array(record["high"], shape, dtype, math.inf)
        box = spaces.Box(low, high, shape, dtype)
        return box if kind == "Box" else ImageSpace(shape, record["channel_axis"], box)
    if kind == "Discrete":
        return spaces.Discrete(record["n"], start=record["start"], dtype=dtype)
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(record["nvec"], dtype=dtype, start=record["start"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(record["n"])
    raise ValueError(f"no space is of type {kind!r}")


def _bounds(values: np.ndarray) -> Any:
    flat = values.ravel()
    numbers = [None if math.isinf(value) else value for value in flat.tolist()]
    return numbers[0] if len(numbers) and (flat == flat[0]).all() else numbers


def _array(bounds: Any, shape: tuple[int, ...], dtype: Any, unbounded: float) -> np.ndarray:
    listed = bounds if isinstance(bounds, list) else [bounds] * int(np.prod(shape))
    numbers = [unbounded if number is None else number for number in listed]
    return np.array(numbers, dtype).reshape(shape)
