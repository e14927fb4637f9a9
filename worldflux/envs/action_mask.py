"""Which discrete actions are allowed: an observation named "action_mask", 1 where one may be taken.

It is one number for each entry of an action row `[A]` (docs/environments.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import Env, spaces

from worldflux.core.config import ACTION_MASK
from worldflux.errors import EnvironmentSetupError

from .actions import ActionLayout, action_layout
from .faults import Failure, values_of
from .spaces import label

_INSIDE = "observation"  # an unnamed observation, next to its mask


class InfoActionMask(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Observes `info["action_mask"]` too: by that name in a Dict, in which an observation that is
    no Dict is "observation"."""

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        layout = action_layout("the environment", env.action_space)
        if not layout.discrete:
            raise EnvironmentSetupError(
                f"environment_kwargs.action_mask needs discrete actions, not {env.action_space}",
                hint="leave out environment_kwargs.action_mask",
            )
        inner = env.observation_space
        self._is_named = isinstance(inner, spaces.Dict)
        named = dict(inner.spaces) if isinstance(inner, spaces.Dict) else {_INSIDE: inner}
        mask = spaces.MultiBinary(sum(layout.widths))
        self.observation_space = spaces.Dict({**named, ACTION_MASK: mask})

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        obs, info = values_of("reset", self.env.reset(**kwargs), 2)
        return self._with_mask(obs, info), info

    def step(self, action: Any) -> Any:
        obs, *others, info = values_of("step", self.env.step(action), 5)
        return self._with_mask(obs, info), *others, info

    def _with_mask(self, obs: Any, info: Any) -> dict[str, Any]:
        if not isinstance(info, Mapping) or ACTION_MASK not in info:
            hint = "leave out environment_kwargs.action_mask"
            raise Failure(0, f"info[{ACTION_MASK!r}]", "is missing", hint)
        mask: Any = info[ACTION_MASK]
        parts = mask if isinstance(mask, tuple) else (mask,)
        joined = np.concatenate([np.ravel(part) for part in parts])
        return {**(obs if self._is_named else {_INSIDE: obs}), ACTION_MASK: joined}


def mask_widths(
    env_id: str, shapes: Mapping[str, tuple[int, ...]], layout: ActionLayout
) -> tuple[int, ...]:
    """Widths of the action parts that a mask covers; empty where none is observed.

    Raises:
        EnvironmentSetupError: for a mask of another size than the actions.
    """
    if not layout.discrete or ACTION_MASK not in shapes:
        return ()
    given, width = shapes[ACTION_MASK], sum(layout.widths)
    if given != (width,):
        raise EnvironmentSetupError(
            f"{env_id} observes {ACTION_MASK!r} as {given}, and has {width} discrete actions",
            hint=f"give it one 0 or 1 for each action, shape ({width},), or another name",
        )
    return layout.widths


def require_choice(
    obs: Mapping[str, np.ndarray], widths: tuple[int, ...], ended: np.ndarray
) -> None:
    """Raise Failure for the first row `[N]` that did not end and allows no action."""
    if not widths:
        return
    mask = obs[ACTION_MASK]
    other = np.flatnonzero(((mask != 0) & (mask != 1)).any(1))
    if len(other):
        raise Failure(int(other[0]), label(ACTION_MASK), "holds other numbers than 0 and 1")
    for part in np.split(mask, np.cumsum(widths)[:-1], axis=1):
        stuck = np.flatnonzero(~part.any(1) & ~ended)
        if len(stuck):
            raise Failure(int(stuck[0]), label(ACTION_MASK), "allows no action")


def allowed_one_hot(rng: np.random.Generator, allowed: np.ndarray) -> np.ndarray:
    """A random allowed choice of each row `[N, W]`, one-hot; of all where none is allowed."""
    allowed = allowed.astype(bool) | ~allowed.any(1, keepdims=True)
    place = rng.integers(0, allowed.sum(1))
    return (allowed & (allowed.cumsum(1) == place[:, None] + 1)).astype(np.float32)
