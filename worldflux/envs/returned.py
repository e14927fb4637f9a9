"""What an environment's reset and step returned, held to Gymnasium's API."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import Env, spaces

API_HINT = (
    "Gymnasium's API: reset(self, *, seed=None, options=None) returns observation, info; "
    "step(self, action) returns observation, reward, terminated, truncated, info"
)
FLOAT32_MAX = float(np.finfo(np.float32).max)


class BadValue(Exception):
    """A value that is not what the environment declares: row of the batch, key, and what is wrong.

    `hint` says what changes or allows it, where something does.
    """

    def __init__(self, row: int, key: str, problem: str, hint: str | None = None) -> None:
        super().__init__(row, key, problem, hint)
        self.row, self.key, self.problem, self.hint = row, key, problem, hint


def checked_environment(made: Any) -> Env:
    """What `make` returned, if it is an environment of Gymnasium.

    Raises:
        BadValue: when it is none, or has no spaces.
    """
    if not isinstance(made, Env):
        kind = type(made)
        problem = f"returned a {kind.__module__}.{kind.__name__}, expected a gymnasium.Env"
        hint = f"wrap it in a class derived from gymnasium.Env. {API_HINT}"
        if made is None:
            problem, hint = "returned None, expected a gymnasium.Env", "return the environment"
        raise BadValue(0, "make", problem, hint)
    for name in ("observation_space", "action_space"):
        space = getattr(made, name, None)
        if not isinstance(space, spaces.Space):
            problem = f"returned an environment whose {name} is {space!r}"
            raise BadValue(0, "make", problem, f"set self.{name} to one of gymnasium.spaces")
    return made


def values_of(key: str, returned: Any, count: int) -> tuple[Any, ...]:
    """The `count` values that `key`, "reset" or "step", returned.

    Raises:
        BadValue: when it returned anything else.
    """
    if isinstance(returned, tuple) and len(returned) == count:
        return returned
    is_tuple = isinstance(returned, tuple)
    told = f"{len(returned)} values" if is_tuple else f"a {type(returned).__name__}"
    raise BadValue(0, key, f"returned {told}, expected {count} values", API_HINT)


def number(reward: Any) -> float:
    """A reward, which may be any number, or an array of one.

    Raises:
        BadValue: when it is none, or not finite in float32.
    """
    try:
        value = np.asarray(reward if reward is not None else "None", np.float64)
    except Exception:  # a tensor raises what it likes, such as one with a gradient
        raise BadValue(0, "reward", f"is {reward!r}, expected a number") from None
    if value.size != 1:
        raise BadValue(0, "reward", f"has shape {value.shape}, expected a number")
    if not abs(value.item()) <= FLOAT32_MAX:  # NaN too
        raise bad_number(0, value.item())
    return float(value.item())


def bad_number(row: int, reward: float) -> BadValue:
    """What is wrong with a reward that is not finite in float32."""
    is_finite = bool(np.isfinite(reward))
    problem = "does not fit float32" if is_finite else "is not finite"
    return BadValue(row, "reward", f"{problem}: {reward}")


def flag(key: str, value: Any) -> bool:
    """`terminated` or `truncated`, which may be an array of one.

    Raises:
        BadValue: when it is neither true nor false.
    """
    try:
        array = np.asarray(value)
        is_known = array.size == 1 and array.item() in (False, True)
    except Exception:  # as of a reward
        is_known = False
    if not is_known:
        raise BadValue(0, key, f"is {value!r}, expected True or False")
    return bool(value)
