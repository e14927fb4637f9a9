"""Values that users give, checked; and an episode in their order, as rows of the one alignment.

Every function raises ShapeMismatchError naming the column, and the row where there is one.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from worldflux.errors import ShapeMismatchError

from .columns import OBS


def episode_rows(
    obs: np.ndarray | Mapping[str, np.ndarray],
    actions: np.ndarray,
    rewards: np.ndarray,
    dones: np.ndarray | None,
    truncations: np.ndarray | None,
    action_dim: int,
) -> dict[str, np.ndarray]:
    """The user's order as columns, one row an observation `[T + 1, ...]`, in our alignment."""
    named = obs if isinstance(obs, Mapping) else {"": obs}
    actions = one_hot_rows(_readable("actions", actions), action_dim)
    rewards = as_float32("rewards", per_step("rewards", rewards))
    steps = len(rewards)
    never = np.zeros(steps, bool)
    done = never if dones is None else flags("dones", dones)
    cut = never if truncations is None else flags("truncations", truncations)
    if steps < 1 or not (len(actions) == len(done) == len(cut) == steps):
        raise ShapeMismatchError(
            f"an episode has as many actions ({len(actions)}), rewards ({steps}) and dones "
            f"({len(done)}), at least one"
        )
    if done[:-1].any() or cut[:-1].any():
        raise ShapeMismatchError("an episode ends once, at its last step: split it there")
    terminal = bool(done[-1] and not cut[-1])
    complete, kept = with_last_observation(named, steps, terminal)
    if complete is not named:
        warnings.warn(
            "add_episode: the observation after the last action is missing: the one before it is "
            "repeated for the true end"
            if terminal
            else "add_episode: the observation after the last action is missing, so the last "
            "action and its reward are left out",
            UserWarning,
            stacklevel=3,
        )
    is_first, is_last, is_terminal = np.zeros((3, kept + 1), bool)
    is_first[0], is_last[-1], is_terminal[-1] = True, True, terminal
    padded = np.zeros((kept + 1, *actions.shape[1:]), np.float32)
    padded[:steps] = actions[: kept + 1]
    received = np.zeros(kept + 1, np.float32)
    received[1:] = rewards[:kept]
    return {
        **{OBS + name: _readable(name or "obs", value) for name, value in complete.items()},
        "action": padded,
        "reward": received,
        "is_first": is_first,
        "is_last": is_last,
        "is_terminal": is_terminal,
    }


def with_last_observation(
    observations: Mapping[str, np.ndarray], steps: int, terminal: bool
) -> tuple[Mapping[str, np.ndarray], int]:
    """Observations `[kept + 1, ...]` of an episode of `steps` actions, and how many are kept.

    Nothing is learned from what follows a true end: if the observation after it is missing, the one
    before it is repeated, and reward and end are kept. A step that was cut off without its
    observation is left out.
    """
    counts = {np.shape(value)[:1] for value in observations.values()}
    if len(counts) != 1:
        raise ShapeMismatchError("the named observations of an episode differ in length")
    (count,) = counts.pop() or (0,)
    if count == steps + 1:
        return observations, steps
    if count != steps:
        raise ShapeMismatchError(
            f"an episode of {steps} actions has {steps + 1} observations (or {steps}, the last "
            f"one missing), not {count}"
        )
    if not terminal:
        return dict(observations), steps - 1
    repeated = {name: np.asarray(value) for name, value in observations.items()}
    return {name: np.concatenate([v, v[-1:]]) for name, v in repeated.items()}, steps


def one_hot_rows(actions: np.ndarray, action_dim: int) -> np.ndarray:
    """Action rows `[T, A]` float32; whole numbers `[T]` or `[T, 1]` are indices of A actions."""
    if actions.ndim == 1 and action_dim == 1:
        actions = actions[:, None]
    if action_dim == 1 or actions.dtype.kind not in "iu" or actions.size != len(actions):
        return actions.astype(np.float32)
    index = actions.reshape(-1)
    outside = np.flatnonzero((index < 0) | (index >= action_dim))
    if len(outside):
        at = int(outside[0])
        raise ShapeMismatchError(
            f"action {at} is {index[at]}: expected an index from 0 to {action_dim - 1}"
        )
    return np.eye(action_dim, dtype=np.float32)[index]


def as_float32(name: str, values: np.ndarray) -> np.ndarray:
    try:
        with np.errstate(over="ignore"):
            numbers = values.astype(np.float32)
    except (TypeError, ValueError) as error:
        raise ShapeMismatchError(f"{name!r} does not hold numbers: {error}") from None
    bad = np.argwhere(~np.isfinite(numbers))
    if len(bad):
        raise ShapeMismatchError(f"{name!r} is not finite in float32 at row {bad[0][0]}")
    return numbers


def _readable(name: str, values: Any) -> np.ndarray:
    """A column as it is, where every number is finite in float32."""
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        as_float32(name, array)
    return array


def per_step(name: str, values: Any) -> np.ndarray:
    """One number a step `[T]`, also from `[T, 1]`."""
    array = np.asarray(values)
    if array.ndim == 0 or array.size != len(array):
        raise ShapeMismatchError(f"{name!r} has shape {array.shape}, expected one number a step")
    return array.reshape(-1)


def flags(name: str, values: Any) -> np.ndarray:
    """Flags `[T]` of 0 and 1."""
    array = per_step(name, values)
    other = np.flatnonzero((array != 0) & (array != 1))
    if len(other):
        row = int(other[0])
        raise ShapeMismatchError(f"{name!r} is {array[row]} at step {row}: expected 0 or 1")
    return array.astype(bool)


def image_bytes(name: str, values: np.ndarray) -> np.ndarray:
    """Images as uint8: bytes, or whole numbers in 0..255."""
    if values.dtype == np.uint8:
        return values
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    if values.dtype.kind in "iu" and low >= 0 and high <= 255:
        return values.astype(np.uint8)
    hint = f"scale {name} to 0..255, then {name}.astype(np.uint8)"
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        hint = f"np.rint(255 * {name}).astype(np.uint8)"
    raise ShapeMismatchError(
        f"replay column {name!r} got {values.dtype}; images are kept as uint8", hint=hint
    )
