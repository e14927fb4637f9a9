"""Gymnasium's spaces: their parts, which of them are images, and wrappers for unsupported ones."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces

from .faults import FLOAT32_MAX, Failure

Path = tuple[str | int, ...]

# --------------------------------------------------------------------------- parts


def parts(space: spaces.Dict | spaces.Tuple) -> list[tuple[str | int, spaces.Space]]:
    named = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
    return list(named)


def leaves(space: spaces.Space, path: Path = ()) -> Iterator[tuple[Path, spaces.Space]]:
    """The spaces that a space is made of, each with its path."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        for key, inner in parts(space):
            yield from leaves(inner, (*path, key))
    else:
        yield path, space


def name_of(path: Path) -> str:
    """The name of a part, "outer/inner"; "" for a space that is no Dict or Tuple."""
    return "/".join(map(str, path))


def named_leaves(space: spaces.Space) -> dict[str, spaces.Space]:
    return {name_of(path): leaf for path, leaf in leaves(space)}


def leaf_values(space: spaces.Space, value: Any, path: Path = ()) -> Iterator[tuple[str, Any]]:
    """The parts of a value of a space, by name. Raises Failure where it has another structure."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        yield name_of(path), value
        return
    key = label(name_of(path))
    is_row = isinstance(value, (tuple, list, np.ndarray))
    if isinstance(space, spaces.Dict):
        if not isinstance(value, Mapping):
            raise Failure(0, key, f"is a {type(value).__name__}, expected a dict")
        if space.spaces.keys() != value.keys():
            problem = f"has keys {sorted(map(str, value))}, expected {sorted(space.spaces)}"
            raise Failure(0, key, problem)
    elif not is_row or len(value) != len(space.spaces):
        given = f"{len(value)} parts" if is_row else f"a {type(value).__name__}"
        raise Failure(0, key, f"is {given}, expected {len(space.spaces)}")
    for name, inner in parts(space):
        yield from leaf_values(inner, value[name], (*path, name))


def nested(space: spaces.Space, named: Mapping[str, Any], path: Path = ()) -> Any:
    """The value of a space whose parts are given by name, as `leaf_values` names them."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return named[name_of(path)]
    values = {name: nested(inner, named, (*path, name)) for name, inner in parts(space)}
    return values if isinstance(space, spaces.Dict) else tuple(values.values())


def label(name: str) -> str:
    return f"observation[{name!r}]" if name else "observation"


# --------------------------------------------------------------------------- images

SMALLEST_IMAGE = 16  # sides; a smaller uint8 matrix is a board, and is read as a vector
_COMMON = (1, 3, 4)  # channels of grey, RGB and RGBA


class ImageSpace(spaces.Box):
    """A Box of images `[H, W, C]`, `[C, H, W]` or `[H, W]` (`channel_axis` 2, 0 or None), with the
    bounds and dtype of `like`, or of bytes."""

    def __init__(
        self, shape: tuple[int, ...], channel_axis: int | None, like: spaces.Box | None = None
    ) -> None:
        low, high, dtype = (
            (0, 255, np.uint8) if like is None else (like.low.min(), like.high.max(), like.dtype)
        )
        super().__init__(low, high, shape, dtype)
        self.channel_axis = channel_axis


def is_image(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """Whether the values of a space are images: bytes, bits or shares of 1, in 3 axes.

    A matrix `[H, W]` is one where it holds bytes and both sides are at least `SMALLEST_IMAGE`.
    """
    if not isinstance(space, spaces.Box) or space.dtype is None or 0 in space.shape:
        return False
    if isinstance(space, ImageSpace):
        return True
    if len(space.shape) == 2:
        return space.dtype == np.uint8 and min(space.shape) >= SMALLEST_IMAGE
    if len(space.shape) != 3:
        return False
    if space.dtype.kind == "f":
        return bool((space.low == 0).all() and (space.high == 1).all())
    return bool((space.low >= 0).all() and (space.high <= 255).all())


def channel_axis(space: spaces.Box) -> int | None:
    """The axis of an image's channels: 0, 2, or None for `[H, W]`.

    Of the first and the last axis it is the one of 1, 3 or 4, else the one that is smaller than
    both others, else the one that differs more from the middle; if both are alike, the last.
    """
    if isinstance(space, ImageSpace):
        return space.channel_axis
    if len(space.shape) == 2:
        return None
    first, middle, last = space.shape
    if first in _COMMON or last in _COMMON:
        return 2 if last in _COMMON else 0
    if min(first, last) < middle:
        return 0 if first < last else 2
    return 0 if abs(first - middle) > abs(last - middle) else 2


def channels_first(space: spaces.Box, images: np.ndarray) -> np.ndarray:
    """Images `[..., H, W, C]`, `[..., H, W]` or `[..., C, H, W]` of a space as `[..., C, H, W]`."""
    axis = channel_axis(space)
    if axis is None:
        return images[..., None, :, :]
    return np.moveaxis(images, -1, -3) if axis == 2 else images


# --------------------------------------------------------------------------- what helps

MAX_CLASSES = 65_536  # a longer one-hot row would fill the replay with zeros
MAX_WHOLE = 2**22  # whole numbers that float32 rows still tell apart, with room for rounding
_Known = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)


def in_make_env(wrapper: str) -> str:
    """A hint that names a wrapper of Gymnasium, as it is written in make_env."""
    return f"in make_env of dataset.py: env = gymnasium.wrappers.{wrapper}"


def is_whole(space: spaces.Space) -> bool:
    return space.dtype is not None and space.dtype.kind in "biu"


def bounded(space: spaces.Box) -> tuple[np.ndarray, np.ndarray]:
    """For each number of a Box, whether it has a lower and an upper bound ; float32's largest,
    which many write for "none", is none."""
    assert space.dtype is not None
    if space.dtype.kind == "f":
        return space.low.astype(float) > -FLOAT32_MAX, space.high.astype(float) < FLOAT32_MAX
    if space.dtype.kind == "b" or space.dtype.itemsize < 4:
        return np.ones(space.shape, bool), np.ones(space.shape, bool)
    widest: Any = np.iinfo(np.dtype(space.dtype.name))
    is_signed = widest.min < 0
    return (space.low > widest.min) | (not is_signed), space.high < widest.max


def action_advice(space: spaces.Space) -> str:
    """A wrapper that makes actions of `space` supported; the user has to choose missing bounds."""
    found: list[Any] = [leaf for _, leaf in leaves(space)]
    if not all(isinstance(leaf, _Known) for leaf in found):
        return in_make_env("TransformAction(env, function, a Box or MultiDiscrete space)")
    low, high = (np.concatenate(ends) for ends in zip(*map(_range, found), strict=True))
    whole = np.concatenate([np.full(_size(leaf), is_whole(leaf)) for leaf in found])
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
    is_open = any(isinstance(leaf, spaces.Box) and not np.all(bounded(leaf)) for leaf in found)
    advice = in_make_env(f"TransformAction(env, lambda a: {action}, gymnasium.spaces.{row})")
    return f"choose bounds, {advice}" if is_open else advice


def observation_advice(space: spaces.Space, refused: Set[Path]) -> str:
    """A wrapper that makes observations of `space` supported; `refused` parts are not as such."""
    kept = {}
    for path, leaf in leaves(space):
        part = _observed(path, leaf) if path in refused else _unchanged(path)
        if part is not None:
            kept[path] = part
    if not kept:
        flat = "FlattenObservation(env)" if space.is_np_flattenable else None
        return in_make_env(flat or "TransformObservation(env, function, a Box space)")
    if () in kept:
        value, inner = kept[()]
    elif keys := _whole_keys(kept, refused):
        return in_make_env(f"FilterObservation(env, {keys})")
    else:
        names = ["_".join(map(str, path)) for path in kept]
        if len(set(names)) < len(names):
            names = [f"part_{number}" for number in range(len(names))]
        value, inner = (
            "{" + ", ".join(f"{n!r}: {t}" for n, t in zip(names, texts, strict=True)) + "}"
            for texts in zip(*kept.values(), strict=True)
        )
        inner = f"gymnasium.spaces.Dict({inner})"
    return in_make_env(f"TransformObservation(env, lambda o: {value}, {inner})")


def _unchanged(path: Path) -> tuple[str, str]:
    """A part of the observation `o` as Python code, and its space."""
    at = "".join(f"[{key!r}]" for key in path)
    return f"o{at}", f"env.observation_space{at}"


def _observed(path: Path, leaf: Any) -> tuple[str, str] | None:
    """A refused part in a supported form; None where it has to be left out."""
    value, space = _unchanged(path)
    if isinstance(leaf, (spaces.Discrete, spaces.MultiDiscrete)):  # of too many classes
        row = _box(*_range(leaf), (_size(leaf),), np.float32)
        return f"np.array({value}, 'float32').reshape(-1)", f"gymnasium.spaces.{row}"
    if not isinstance(leaf, spaces.Box) or (0 in leaf.shape and path):
        return None
    if 0 in leaf.shape:
        return "np.zeros(1, 'float32')", "gymnasium.spaces.Box(0.0, 0.0, (1,), 'float32')"
    low, high, shape = leaf.low.min(), leaf.high.max(), leaf.shape
    if len(shape) == 3 and low >= 0 and high <= 255:
        return (
            f"np.rint({value}).astype('uint8')",
            f"gymnasium.spaces.Box(0, 255, {shape}, 'uint8')",
        )
    one = spaces.Box(leaf.low[0], leaf.high[0], dtype=leaf.dtype) if len(shape) == 4 else leaf
    if one is not leaf and is_image(one):  # frames [k, H, W, C]: their channels side by side
        axis = channel_axis(one) or 0
        stacked = [side * (shape[0] if i == axis else 1) for i, side in enumerate(one.shape)]
        row = f"Box({low}, {high}, {tuple(stacked)}, {str(leaf.dtype)!r})"
        return f"np.concatenate({value}, {axis})", f"gymnasium.spaces.{row}"
    return f"{value}.reshape(-1)", f"gymnasium.spaces.flatten_space({space})"


def _whole_keys(kept: Collection[Path], refused: Set[Path]) -> list[Any]:
    """The outer keys of what is kept, if leaving out the others is all that is needed."""
    broken = {path[0] for path in refused}
    keys = list(dict.fromkeys(path[0] for path in kept))
    return [] if broken & set(keys) or not all(isinstance(k, str) for k in keys) else keys


def _size(leaf: Any) -> int:
    return int(np.prod(leaf.shape))


def _range(leaf: Any) -> tuple[np.ndarray, np.ndarray]:
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
    """Python code of the action in the row `a` from `start` on, and where it ends there."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        texts = []
        for name, inner in parts(space):
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


def _box(low: np.ndarray, high: np.ndarray, shape: tuple[int, ...], dtype: Any) -> str:
    ends = [_numbers(values, shape, np.dtype(dtype)) for values in (low, high)]
    return f"Box({ends[0]}, {ends[1]}, {shape}, {str(np.dtype(dtype))!r})"


def _numbers(values: np.ndarray, shape: tuple[int, ...], dtype: Any) -> str:
    """Numbers of a dtype as Python code, one if all are equal."""
    exact = values.astype(dtype)
    if (exact == exact[0]).all():
        return str(exact[0])
    shortest = [float(str(value)) if dtype.kind == "f" else value.item() for value in exact]
    listed = np.array(shortest, object).reshape(shape).tolist()
    return f"np.array({listed}, {str(dtype)!r})"


def _integers(values: np.ndarray) -> str:
    return str(values.astype(int).tolist())
