"""What can go wrong in an environment: values that break Gymnasium's API, and calls that fail."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium import Env, spaces

from worldflux.errors import EnvironmentFault, WorldFluxError, described, frames_of, place

from .requirements import missing_renderer

API_HINT = (
    "Gymnasium's API: reset(self, *, seed=None, options=None) returns observation, info; "
    "step(self, action) returns observation, reward, terminated, truncated, info"
)
FLOAT32_MAX = float(np.finfo(np.float32).max)
# What code of the user may raise; Ctrl+C never reaches an environment process.
RAISED = (Exception, SystemExit, KeyboardInterrupt)

_UNEXPECTED = re.compile(r"([\w.<>]+)\(\) got an unexpected keyword argument '(\w+)'")
_WRAPPERS = (f"{os.sep}gymnasium{os.sep}wrappers{os.sep}", f"{os.sep}gymnasium{os.sep}core.py")
_RENDERERS = ("OpenGL", "mujoco", "dm_control")


class Failure(Exception):
    """What is wrong with a row of a batch or with an environment: its number, the key, the problem,
    what changes or allows it, and where in the code."""

    def __init__(
        self, row: int, key: str, problem: str, hint: str | None = None, where: str | None = None
    ) -> None:
        super().__init__(row, key, problem, hint, where)
        self.row, self.key, self.problem, self.hint, self.where = row, key, problem, hint, where


def checked_environment(made: Any) -> Env:
    """What `make` returned; raises Failure if that is no environment of Gymnasium with spaces."""
    if not isinstance(made, Env):
        kind = type(made)
        problem = f"returned a {kind.__module__}.{kind.__name__}, expected a gymnasium.Env"
        hint = f"wrap it in a class derived from gymnasium.Env. {API_HINT}"
        if made is None:
            problem, hint = "returned None, expected a gymnasium.Env", "return the environment"
        raise Failure(0, "make", problem, hint)
    for name in ("observation_space", "action_space"):
        space = getattr(made, name, None)
        if not isinstance(space, spaces.Space):
            problem = f"returned an environment whose {name} is {space!r}"
            raise Failure(0, "make", problem, f"set self.{name} to one of gymnasium.spaces")
    if not isinstance(made.metadata, dict):
        problem = f"returned an environment whose metadata is {made.metadata!r}"
        raise Failure(0, "make", problem, "set metadata to a dict, which may be empty")
    return made


def values_of(key: str, returned: Any, count: int) -> tuple[Any, ...]:
    """The `count` values that `key`, "reset" or "step", returned; else raises Failure."""
    is_tuple = isinstance(returned, tuple)
    if is_tuple and len(returned) == count:
        return tuple(returned)
    given = f"{len(returned)} values" if is_tuple else f"a {type(returned).__name__}"
    raise Failure(0, key, f"returned {given}, expected {count} values", API_HINT)


def number(reward: Any) -> float:
    """A reward: a number or an array of one; raises Failure if it is not finite in float32."""
    try:
        value = np.asarray(reward if reward is not None else "None", np.float64)
    except Exception:  # a tensor raises what it likes, such as one with a gradient
        raise Failure(0, "reward", f"is {reward!r}, expected a number") from None
    if value.size != 1:
        raise Failure(0, "reward", f"has shape {value.shape}, expected a number")
    check_rewards(value.ravel())
    return float(value.item())


def check_rewards(rewards: np.ndarray) -> None:
    """Raises Failure for the first of `[N]` rewards that is not finite in float32."""
    bad = np.flatnonzero(~(abs(rewards) <= FLOAT32_MAX))  # NaN too
    if len(bad):
        reward = rewards[bad[0]]
        problem = "does not fit float32" if np.isfinite(reward) else "is not finite"
        raise Failure(int(bad[0]), "reward", f"{problem}: {reward}")


def flag(key: str, value: Any) -> bool:
    """`terminated` or `truncated`, or an array of one; raises Failure if not true or false."""
    try:
        array = np.asarray(value)
        is_known = array.size == 1 and array.item() in (False, True)
    except Exception:  # as of a reward
        is_known = False
    if not is_known:
        raise Failure(0, key, f"is {value!r}, expected True or False")
    return bool(value)


def failure_of(index: int, key: str, error: BaseException, called: Any = None) -> Failure:
    """The failure of environment `index` when `error` ended a call of it.

    `key` is "make", "reset", "step" or "render", `called` the environment's function of that name.
    """
    if isinstance(error, Failure):
        return Failure(index + error.row, error.key, error.problem, error.hint, error.where)
    where = place(error)
    if isinstance(error, SystemExit):
        return Failure(index, key, f"called exit({error.code!r})", where=where)
    hint = renderer_hint(error)
    unexpected = _UNEXPECTED.search(str(error))
    if unexpected and unexpected[2] == "render_mode":
        hint = f"give {unexpected[1]} a parameter render_mode=None"
    elif key in ("reset", "step") and (unexpected or _is_call_itself(error)):
        hint, code = API_HINT, getattr(called, "__code__", None)
        if code is not None and not frames_of(error):
            where = f"{code.co_filename}:{code.co_firstlineno}"
    return Failure(index, key, f"raised {described(error)}", hint, where)


@contextmanager
def blamed_on(index: int) -> Iterator[None]:
    """Counts the row of a Failure from environment `index`."""
    try:
        yield
    except Failure as error:
        raise failure_of(index, error.key, error) from None


@contextmanager
def guarded(key: str, env: Env | None = None, at: str = "") -> Iterator[None]:
    """What fails with an environment of this very process becomes an EnvironmentFault.

    `key` is as in `failure_of`; `at` says when, such as "episode 0, step 3: ".
    """
    try:
        yield
    except WorldFluxError:
        raise
    except (Exception, SystemExit) as error:
        function = None if env is None else getattr(env.unwrapped, key, None)
        failure = failure_of(0, key, error, function)
        raise EnvironmentFault(
            f"{at}the environment's {failure.key} {failure.problem}",
            where=failure.where,
            hint=failure.hint,
        ) from error


def begun(env: Env, seed: int, at: str = "") -> Any:
    """The first observation of an episode in this very process; see `guarded`."""
    with guarded("reset", env, at):
        return values_of("reset", env.reset(seed=seed), 2)[0]


def stepped(env: Env, action: Any, at: str = "") -> tuple[Any, float, bool, bool]:
    """Observation, reward, terminated and truncated of a step in this very process."""
    with guarded("step", env, at):
        obs, reward, terminated, truncated, _ = values_of("step", env.step(action), 5)
        return obs, number(reward), flag("terminated", terminated), flag("truncated", truncated)


def close_environment(env_id: str, env: Any) -> None:
    """Close an environment; one that raises has nothing left to lose, so it is only printed."""
    try:
        env.close()
    except RAISED as error:
        at = place(error)
        where = "" if at is None else f"{at}: "
        text = f"warning: {where}{env_id}: close raised {described(error)}\n"
        os.write(2, text.encode())  # whatever the trainer made of sys.stderr


def renderer_hint(error: BaseException) -> str | None:
    """What helps if MuJoCo was set to draw with a library that is not installed."""
    obstacle = missing_renderer()
    files = [frame.filename for frame in frames_of(error, installed=True)]
    if obstacle is None or not any(name in file for file in files for name in _RENDERERS):
        return None
    return f"{obstacle.problem}: {obstacle.command}, or unset MUJOCO_GL"


def _is_call_itself(error: BaseException) -> bool:
    """Whether a call was refused, or what it returned, and nothing in it raised."""
    frames = frames_of(error, installed=True)
    return isinstance(error, (TypeError, ValueError)) and (
        not frames or any(part in frames[-1].filename for part in _WRAPPERS)
    )
