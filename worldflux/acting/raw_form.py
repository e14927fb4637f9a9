"""Values of a space as JSON and as raw bytes: the arrays of its parts, little-endian, in order."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces

from worldflux.envs.faults import Failure
from worldflux.envs.spaces import leaf_values, named_leaves, nested
from worldflux.errors import EnvironmentFault


def layout(space: spaces.Space) -> list[dict[str, Any]]:
    """Name, dtype and shape of each part, in the order of the raw form."""
    return [
        {"name": name, "dtype": _dtype(leaf).str, "shape": list(leaf.shape or ())}
        for name, leaf in named_leaves(space).items()
    ]


def size_bytes(space: spaces.Space) -> int:
    """Bytes of the raw form."""
    return sum(map(_leaf_bytes, named_leaves(space).values()))


def from_bytes(space: spaces.Space, data: bytes) -> Any:
    """The value that raw bytes hold; EnvironmentFault when there are too many or too few."""
    if len(data) != size_bytes(space):
        raise EnvironmentFault(
            f"the raw observation has {len(data)} bytes, expected {size_bytes(space)}",
            hint="GET / lists the arrays that it consists of",
        )
    named, start = {}, 0
    for name, leaf in named_leaves(space).items():
        shape, size = leaf.shape or (), _leaf_bytes(leaf)
        named[name] = np.frombuffer(data[start : start + size], _dtype(leaf)).reshape(shape)
        start += size
    return nested(space, named)


def to_bytes(space: spaces.Space, value: Any) -> bytes:
    """The raw form of a value of the space."""
    leaves = named_leaves(space)
    parts = leaf_values(space, value)
    return b"".join(np.asarray(part, _dtype(leaves[name])).tobytes() for name, part in parts)


def from_json(space: spaces.Space, value: Any) -> Any:
    """The value that JSON describes: lists as arrays; EnvironmentFault for another structure."""
    leaves = named_leaves(space)
    try:
        return nested(space, {n: _array(leaves[n], v) for n, v in leaf_values(space, value)})
    except Failure as failure:
        raise EnvironmentFault(f"{failure.key} {failure.problem}") from None
    except (ValueError, OverflowError) as error:
        raise EnvironmentFault(f"the observation is no array: {error}") from None


def to_json(value: Any) -> Any:
    """Arrays as lists; float32 numbers as the float64 ones that they equal."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _array(leaf: spaces.Space, value: Any) -> np.ndarray:
    """JSON knows one kind of whole numbers; here they get the space's type where they fit."""
    array = np.asarray(value)
    if array.dtype.kind == "i" and _dtype(leaf).kind in "iub":
        cast = array.astype(_dtype(leaf))
        return cast if np.array_equal(cast, array) else array
    return array


def _dtype(leaf: spaces.Space) -> np.dtype[Any]:
    assert leaf.dtype is not None
    return np.dtype(leaf.dtype).newbyteorder("<")


def _leaf_bytes(leaf: spaces.Space) -> int:
    return int(np.prod(leaf.shape or (), dtype=np.int64)) * _dtype(leaf).itemsize
