"""What to write into make_env where a space has no contract here: a line that works for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Array = NDArray[Any]

MAX_CLASSES = 65_536  # a longer one-hot row would fill the replay with zeros
MAX_WHOLE = 2**22  # whole numbers that float32 rows still tell apart, with room for rounding
# A bound this far out (float32's largest number, which many write for "none") is none.
_LARGEST = float(np.finfo(np.float32).max)
_Known = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def in_make_env(wrapper: str) -> str:
    """The hint that names a wrapper of Gymnasium, as it is written in make_env."""
    return f"in make_env of dataset.py: env = gymnasium.wrappers.{wrapper}"


def is_whole(space: spaces.Space) -> bool:
    """Whether its values are whole numbers."""
    return space.dtype is not None and space.dtype.kind in "biu"


def bounded(space: spaces.Box) -> tuple[Array, Array]:
    """For each number of a Box, whether it has a lower and an upper bound worth the name."""
    assert space.dtype is not None
    if space.dtype.kind == "f":
        return space.low.astype(float) > -_LARGEST, space.high.astype(float) < _LARGEST
    if space.dtype.kind == "b" or space.dtype.itemsize < 4:
        return np.ones(space.shape, bool), np.ones(space.shape, bool)
    widest: Any = np.iinfo(np.dtype(space.dtype.name))
    is_signed = widest.min < 0
    return (space.low > widest.min) | (not is_signed), space.high < widest.max


def action_advice(space: spaces.Space) -> str:
    """The wrapper that gives actions of `space` a form that worldflux takes.

    Numbers without bounds get -1 and 1: which ones are right, only the user knows.
    """
    leaves = list(_leaves(space))
    if not all(isinstance(leaf, _Known) for leaf in leaves):
        return in_make_env("TransformAction(env, function, a Box or MultiDiscrete space)")
    low, high = (np.concatenate(ends) for ends in zip(*map(_range, leaves), strict=True))
    whole = np.concatenate([np.full(_size(leaf), is_whole(leaf)) for leaf in leaves])
    choices = high - low + 1
    action = "a"
    if isinstance(space, spaces.Box) and len(low) and (choices[whole] <= MAX_WHOLE).all():
        row = _box(low, high, space.shape, space.dtype)
    elif whole.all() and choices.sum() <= MAX_CLASSES:
        action, _ = _action(space, 0, in_classes=True)
        starts = f", start={_integers(low)}" if low.any() else ""
        row = f"MultiDiscrete({_integers(choices)}{starts})" if len(low) else "Discrete(1)"
    else:
        action, _ = _action(space, 0, in_classes=False)
        row = _box(low, np.where(whole, np.nextafter(high + 1, low), high), low.shape, np.float64)
    is_open = any(isinstance(leaf, spaces.Box) and not np.all(bounded(leaf)) for leaf in leaves)
    wrapper = f"TransformAction(env, lambda a: {action}, gymnasium.spaces.{row})"
    return in_make_env(wrapper) + (" (with bounds of your choice)" if is_open else "")


def _leaves(space: spaces.Space) -> Iterator[Any]:
    """The spaces that a space is made of, in the order of its row."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        for inner in dict(_parts(space)).values():
            yield from _leaves(inner)
    else:
        yield space


def _parts(space: spaces.Dict | spaces.Tuple) -> list[tuple[Any, spaces.Space]]:
    return list(space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space))


def _size(leaf: Any) -> int:
    return int(np.prod(leaf.shape))


def _range(leaf: Any) -> tuple[Array, Array]:
    """The smallest and the largest value of each number of a leaf."""
    if isinstance(leaf, spaces.MultiBinary):
        return np.zeros(_size(leaf)), np.ones(_size(leaf))
    if not isinstance(leaf, spaces.Box):
        start = np.ravel(leaf.start).astype(np.float64)
        return start, start + np.ravel(getattr(leaf, "nvec", getattr(leaf, "n", 1))) - 1
    low, high = leaf.low.astype(np.float64).ravel(), leaf.high.astype(np.float64).ravel()
    below, above = (np.ravel(is_there) for is_there in bounded(leaf))
    lower = np.where(below, low, np.where(above, np.minimum(-1.0, high - 2.0), -1.0))
    upper = np.where(above, high, np.where(below, np.maximum(1.0, low + 2.0), 1.0))
    return lower, upper


def _action(space: Any, start: int, *, in_classes: bool) -> tuple[str, int]:
    """The action as Python, made from the row `a` from `start` on; and where it ends there."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        texts = []
        for name, inner in _parts(space):
            text, start = _action(inner, start, in_classes=in_classes)
            texts.append(f"{name!r}: {text}" if isinstance(space, spaces.Dict) else f"{text},")
        is_named = isinstance(space, spaces.Dict)
        return (f"{{{', '.join(texts)}}}" if is_named else f"({' '.join(texts)})"), start
    end, shape = start + _size(space), space.shape
    if isinstance(space, spaces.Discrete):
        return (f"a[{start}]" if in_classes else f"int(np.floor(a[{start}]))"), end
    part = f"a[{start}:{end}]" if end > start else "np.zeros(0)"
    if is_whole(space) and not in_classes:
        part = f"np.floor({part})"
    if len(shape) != 1 or end == start:
        part = f"{part}.reshape({shape})"
    return f"{part}.astype({str(space.dtype)!r})", end


def _box(low: Array, high: Array, shape: tuple[int, ...], dtype: Any) -> str:
    ends = [_numbers(values, shape, np.dtype(dtype)) for values in (low, high)]
    return f"Box({ends[0]}, {ends[1]}, {shape}, {str(np.dtype(dtype))!r})"


def _numbers(values: Array, shape: tuple[int, ...], dtype: Any) -> str:
    """Numbers of a dtype as Python, one where all are equal."""
    exact = values.astype(dtype)
    if (exact == exact[0]).all():
        return str(exact[0])
    shortest = [float(str(value)) if dtype.kind == "f" else value.item() for value in exact]
    nested = np.array(shortest, object).reshape(shape).tolist()
    return f"np.array({nested}, {str(dtype)!r})"


def _integers(values: Array) -> str:
    return str(values.astype(int).tolist())
