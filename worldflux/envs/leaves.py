"""Dict and Tuple spaces, however nested, as one row of named parts: "outer/inner"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from .returned import BadValue

Path = tuple[str | int, ...]


def parts(space: spaces.Dict | spaces.Tuple) -> list[tuple[str | int, spaces.Space]]:
    """What a composite space holds, by key or number."""
    named = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    return list(named)


def leaves(space: spaces.Space, path: Path = ()) -> Iterator[tuple[Path, spaces.Space]]:
    """The spaces that a space is made of, each with the way to it."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        for key, inner in parts(space):
            yield from leaves(inner, (*path, key))
    else:
        yield path, space


def name_of(path: Path) -> str:
    """The name of a part; "" for a space that is no Dict or Tuple."""
    return "/".join(map(str, path))


def leaf_values(space: spaces.Space, value: Any, path: Path = ()) -> Iterator[tuple[str, Any]]:
    """The parts of a value of a space, by name.

    Raises:
        BadValue: where the value is put together otherwise.
    """
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        yield name_of(path), value
        return
    key = label(path)
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping):
            raise BadValue(0, key, f"is a {type(value).__name__}, expected a dict")
        if space.spaces.keys() != value.keys():
            raise BadValue(
                0, key, f"has keys {sorted(map(str, value))}, expected {sorted(space.spaces)}"
            )
    elif not isinstance(value, (tuple, list, np.ndarray)) or len(value) != len(space.spaces):
        is_row = isinstance(value, (tuple, list, np.ndarray))
        told = f"{len(value)} parts" if is_row else f"a {type(value).__name__}"
        raise BadValue(0, key, f"is {told}, expected {len(space.spaces)}")
    for name, inner in parts(space):
        yield from leaf_values(inner, value[name], (*path, name))


def nested(space: spaces.Space, named: Mapping[str, Any], path: Path = ()) -> Any:
    """The value of a space whose parts are given by name, as `leaf_values` names them."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return named[name_of(path)]
    values = {name: nested(inner, named, (*path, name)) for name, inner in parts(space)}
    return values if isinstance(space, spaces.Dict) else tuple(values.values())


def label(path: Path) -> str:
    """How messages name the part of an observation."""
    return f"observation[{name_of(path)!r}]" if path else "observation"
