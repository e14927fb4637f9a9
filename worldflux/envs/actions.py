"""Actions: from a model's action rows to the environment's own, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from worldflux.errors import EnvironmentSetupError

from .faults import Failure
from .spaces import MAX_CLASSES, MAX_WHOLE, action_advice, bounded, is_whole

_BOUND_SLACK = 1e-3  # of the half range: rounding to float32 is no fault


@dataclass(frozen=True)
class ActionLayout:
    """An action row: one-hot parts of these widths, or numbers in [-1, 1]."""

    discrete: bool
    widths: tuple[int, ...]


def action_layout(env_id: str, space: spaces.Space) -> ActionLayout:
    """The layout of an action space: Discrete, MultiDiscrete, MultiBinary, or a bounded Box; else
    EnvironmentSetupError with a wrapper that helps."""
    space = as_classes(space)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        widths = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        if widths.sum() > MAX_CLASSES:
            raise EnvironmentSetupError(
                f"{env_id} has {widths.sum()} discrete actions, more than {MAX_CLASSES}",
                hint=action_advice(space),
            )
        return ActionLayout(True, tuple(int(n) for n in widths))
    if not isinstance(space, spaces.Box) or 0 in space.shape:
        raise EnvironmentSetupError(
            f"{env_id} takes actions of {space}, and worldflux takes a Box with finite bounds, "
            "Discrete, MultiDiscrete and MultiBinary",
            hint=action_advice(space),
        )
    if not np.all(bounded(space)):
        problem = "has actions without finite bounds"
    elif is_whole(space) and _whole_numbers(space).max() > MAX_WHOLE:
        problem = f"has integer actions of more than {MAX_WHOLE:,} values"
    else:
        return ActionLayout(False, (int(np.prod(space.shape)),))
    raise EnvironmentSetupError(f"{env_id} {problem}: {space}", hint=action_advice(space))


def environment_actions(space: spaces.Space, rows: np.ndarray) -> np.ndarray:
    """The environment's own actions `[N, ...]` of action rows `[N, A]`.

    Continuous rows are clipped to [-1, 1] and rescaled to the bounds; each whole number of an
    integer Box has an equal share of [-1, 1]. One-hot parts become indices from `start` on.
    """
    space = as_classes(space)
    count = len(rows)
    if isinstance(space, spaces.Discrete):
        return rows.argmax(-1).astype(space.dtype) + space.start
    if isinstance(space, spaces.MultiDiscrete):
        edges = np.cumsum(np.ravel(space.nvec))[:-1]
        parts = [part.argmax(-1) for part in np.split(rows, edges, axis=1)]
        chosen = np.stack(parts, 1).reshape(count, *space.shape).astype(space.dtype)
        return np.asarray(chosen + space.start)
    assert isinstance(space, spaces.Box)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    unit = np.clip(rows.astype(np.float64), -1.0, 1.0).reshape(count, *space.shape)
    if is_whole(space):
        chosen = low + np.floor((unit + 1.0) / 2.0 * _whole_numbers(space))
        return np.minimum(chosen, high).astype(space.dtype)
    middle, half = (high + low) / 2, (high - low) / 2
    # Rounding to float32 may step over a bound by one unit in the last place.
    return np.clip((middle + half * unit).astype(space.dtype), space.low, space.high)


def action_rows(space: spaces.Space, actions: np.ndarray) -> np.ndarray:
    """Action rows `[T, A]` of an environment's own actions `[T, ...]`: the reverse of acting.

    One-hot rows stay as they are; numbers out of bounds by rounding are clipped. Raises Failure
    for the first action that is not in the space.
    """
    space = as_classes(space)
    actions = np.asarray(actions)
    layout = action_layout("the data", space)
    flat = actions.reshape(len(actions), -1)
    if layout.discrete and flat.shape[1] == sum(layout.widths) > len(layout.widths):
        return _checked_one_hot(flat, layout.widths)
    expected = len(layout.widths) if layout.discrete else layout.widths[0]
    if flat.shape[1] != expected:
        raise Failure(0, "action", f"has {flat.shape[1]} numbers, expected {expected}")
    return _one_hot_rows(space, flat, layout.widths) if layout.discrete else _unit_rows(space, flat)


def _checked_one_hot(flat: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    for part in np.split(flat, np.cumsum(widths)[:-1], axis=1):
        bad = np.flatnonzero(~np.isin(part, (0, 1)).all(1) | (part.sum(1) != 1))
        if len(bad):
            raise Failure(int(bad[0]), "action", f"is not one-hot: {part[bad[0]]}")
    return flat.astype(np.float32)


def _one_hot_rows(space: spaces.Space, flat: np.ndarray, widths: tuple[int, ...]) -> np.ndarray:
    assert isinstance(space, (spaces.Discrete, spaces.MultiDiscrete))
    index = flat - np.ravel(space.start)
    whole = np.equal(np.mod(index, 1), 0)
    bad = np.argwhere(~whole | (index < 0) | (index >= np.array(widths)))
    if len(bad):
        row, part = bad[0]
        raise Failure(int(row), "action", f"is outside {space}: {flat[row, part]}")
    parts = [np.eye(n, dtype=np.float32)[index[:, i].astype(int)] for i, n in enumerate(widths)]
    return np.concatenate(parts, axis=1)


def _unit_rows(space: spaces.Space, flat: np.ndarray) -> np.ndarray:
    assert isinstance(space, spaces.Box)
    low, high = space.low.astype(np.float64).ravel(), space.high.astype(np.float64).ravel()
    given = flat.astype(np.float64)
    width = high - low
    if is_whole(space):
        rows = (2.0 * (given - low) + 1.0) / (width + 1.0) - 1.0  # the middle of its share
        outside = ~((given >= low) & (given <= high) & (given == np.floor(given)))
    else:
        rows = 2.0 * (given - low) / np.where(width > 0, width, 1.0) - (width > 0)
        outside = ~(np.abs(rows) <= np.where(width > 0, 1.0, 0.0) + _BOUND_SLACK)  # NaN too
    bad = np.argwhere(outside)
    if len(bad):
        row, part = bad[0]
        is_between = is_whole(space) and low[part] <= given[row, part] <= high[part]
        problem = (
            "not a whole number"
            if is_between
            else f"outside its bounds {low[part]} and {high[part]} by more than rounding "
            f"({_BOUND_SLACK:.1%} of half their range)"
        )
        raise Failure(int(row), "action", f"is {flat[row, part]}, {problem}")
    return np.clip(rows, -1.0, 1.0).astype(np.float32)


def as_classes(space: spaces.Space) -> spaces.Space:
    """Bits as classes of two, every other space as it is."""
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiDiscrete(np.full(space.shape, 2), dtype=np.int8)
    return space


def _whole_numbers(space: spaces.Box) -> np.ndarray:
    return space.high.astype(np.float64) - space.low.astype(np.float64) + 1.0
