"""From a model's action row to what an environment takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldflux.errors import EnvironmentSetupError

Array = NDArray[Any]


@dataclass(frozen=True)
class ActionLayout:
    """How a row of action numbers is made up: one-hot parts, or numbers in [-1, 1]."""

    discrete: bool
    widths: tuple[int, ...]


def action_layout(env_id: str, space: spaces.Space) -> ActionLayout:
    """The layout of an action space: Discrete, MultiDiscrete, or a Box with finite bounds.

    Raises:
        EnvironmentSetupError: for any other space.
    """
    if isinstance(space, spaces.Discrete):
        return ActionLayout(True, (int(space.n),))
    if isinstance(space, spaces.MultiDiscrete):
        return ActionLayout(True, tuple(int(n) for n in np.ravel(space.nvec)))
    if isinstance(space, spaces.Box):
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise EnvironmentSetupError(
                f"{env_id} has actions without finite bounds; worldflux rescales [-1, 1] to them",
                hint="wrap it with gymnasium.wrappers.RescaleAction in make_env of dataset.py",
            )
        return ActionLayout(False, (int(np.prod(space.shape)) or 1,))
    raise EnvironmentSetupError(
        f"{env_id} takes {type(space).__name__} actions; worldflux takes Box, Discrete and "
        "MultiDiscrete",
        hint="wrap it with gymnasium.wrappers.TransformAction in make_env of dataset.py",
    )


def environment_actions(space: spaces.Space, rows: Array) -> Array:
    """The environment's own actions `[N, ...]` of action rows `[N, A]`.

    Continuous rows are clipped to [-1, 1] and rescaled to the bounds; one-hot parts become
    indices, from the space's `start` on.
    """
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
    middle, half = (high + low) / 2, (high - low) / 2
    unit = np.clip(rows.astype(np.float64), -1.0, 1.0).reshape(count, *space.shape)
    # Rounding to float32 may step over a bound by one unit in the last place.
    return np.clip((middle + half * unit).astype(space.dtype), space.low, space.high)
