"""An episode in the order that users have it, brought into the project's one time alignment."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldflux.errors import ShapeMismatchError

from .columns import OBS

Array = NDArray[Any]


def episode_rows(
    obs: Array | Mapping[str, Array],
    actions: Array,
    rewards: Array,
    dones: Array,
    truncations: Array | None,
) -> dict[str, Array]:
    """The user's order as columns, one row an observation `[T + 1, ...]`, in our alignment.

    Raises:
        ShapeMismatchError: naming the array whose length does not fit.
    """
    named = obs if isinstance(obs, Mapping) else {"": obs}
    observations = {OBS + name: np.asarray(value) for name, value in named.items()}
    actions = np.asarray(actions, np.float32)
    rewards, dones = np.asarray(rewards, np.float32), np.asarray(dones, bool)
    steps = len(rewards)
    cut = np.zeros(steps, bool) if truncations is None else np.asarray(truncations, bool)
    if steps < 1 or not (len(actions) == len(dones) == len(cut) == steps):
        raise ShapeMismatchError(
            f"an episode has as many actions ({len(actions)}), rewards ({steps}) and dones "
            f"({len(dones)}), at least one"
        )
    count = _row_count(observations, steps)
    if dones[:-1].any() or cut[:-1].any():
        raise ShapeMismatchError("an episode ends once, at its last step: split it there")
    if count == steps:
        warnings.warn(
            "add_episode: the observation after the last action is missing, so the last reward "
            "and its end flag are left out",
            UserWarning,
            stacklevel=3,
        )
    is_first, is_last = np.zeros(count, bool), np.zeros(count, bool)
    is_first[0], is_last[-1] = True, True
    terminal = np.zeros(count, bool)
    terminal[1:] = (dones & ~cut)[: count - 1]
    padded = np.zeros((count, *actions.shape[1:]), np.float32)
    padded[:steps] = actions
    received = np.zeros(count, np.float32)
    received[1:] = rewards[: count - 1]
    return {
        **observations,
        "action": padded,
        "reward": received,
        "is_first": is_first,
        "is_last": is_last,
        "is_terminal": terminal,
    }


def _row_count(observations: Mapping[str, Array], steps: int) -> int:
    counts = {len(value) for value in observations.values()}
    if len(counts) != 1:
        raise ShapeMismatchError("the named observations of an episode differ in length")
    (count,) = counts
    if count not in (steps, steps + 1):
        raise ShapeMismatchError(
            f"an episode of {steps} actions has {steps + 1} observations (or {steps}, the last "
            f"one missing), not {count}"
        )
    return count
