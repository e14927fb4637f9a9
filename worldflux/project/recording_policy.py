"""Who acts while `worldflux data record` records: chance, a person, or a function of the user's."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import Env, spaces

from worldflux.core.config import ACTION_MASK
from worldflux.envs.faults import guarded
from worldflux.errors import ConfigurationError, described, place
from worldflux.evaluation.window import DEFAULT_FPS, Window

Act = Callable[[Any], Any]
"""From the environment's observation to its action."""

_FORMS = "write random, human, or MODULE:FUNCTION, a function from observation to action"
_ROUNDING = 1e-6  # of a bound: a policy that scales in float32 may step over it


def policy_named(name: str, env: Env, seed: int, keys: Sequence[str] = ()) -> Act:
    """The policy that `--policy` names: "random", "human", or `module:function` of this folder."""
    if name == "random":
        return _random(env.action_space, seed)
    if name == "human":
        return Keyboard(env, keys).act
    return _calling(name, _imported(name))


def _imported(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"--policy {name}: {error}", hint=_FORMS) from None
    except (Exception, SystemExit) as error:
        raise _raised(name, error) from error
    if not callable(found):
        kind = type(found).__name__
        raise ConfigurationError(f"--policy {name}: no function ({kind})", hint=_FORMS)
    return found


def _calling(name: str, function: Act) -> Act:
    """The function; what it raises is the user's own error, at its line."""

    def act(obs: Any) -> Any:
        try:
            return function(obs)
        except (Exception, SystemExit) as error:
            raise _raised(name, error, function) from error

    return act


def _raised(name: str, error: BaseException, function: Any = None) -> ConfigurationError:
    where, code = place(error), getattr(function, "__code__", None)
    if where is None and code is not None:  # the call itself was refused
        where = f"{code.co_filename}:{code.co_firstlineno}"
    hint = _FORMS if isinstance(error, TypeError) else None
    return ConfigurationError(f"--policy {name} raised {described(error)}", where=where, hint=hint)


def action_problem(space: spaces.Space, action: Any) -> str | None:
    """What is wrong with an action of a policy, if the environment does not take it.

    Real numbers count in the precision of the space, and may step over a bound by rounding.
    """
    given = f"is {action!r}, and {space} is allowed"
    try:
        values = np.asarray(action)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return f"is not finite: {action!r}"
        if not isinstance(space, spaces.Box):
            whole = isinstance(space, (spaces.Dict, spaces.Tuple)) or values.dtype.kind in "biu"
            return None if whole and space.contains(action) else given
        if values.shape != space.shape:
            return f"has the shape {values.shape}, and {space} is allowed: {action!r}"
        fits = values.dtype.kind in ("biuf" if space.dtype.kind == "f" else "biu")
        exact = values.astype(space.dtype) if fits else values
    except (TypeError, ValueError):
        return given
    low = space.low - _ROUNDING * abs(space.low)
    high = space.high + _ROUNDING * abs(space.high)
    return None if fits and ((exact >= low) & (exact <= high)).all() else given


def _random(space: spaces.Space, seed: int) -> Act:
    """Uniformly random actions; of discrete ones those that an observed mask allows."""
    space.seed(seed)

    def act(obs: Any) -> Any:
        mask = obs.get(ACTION_MASK) if isinstance(obs, Mapping) else None
        if mask is not None and isinstance(space, spaces.Discrete):
            return space.sample(mask=np.asarray(mask, np.int8))
        if mask is not None and isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
            parts = np.split(np.asarray(mask, np.int8), np.cumsum(space.nvec)[:-1])
            return space.sample(mask=tuple(parts))
        return space.sample()

    return act


class Keyboard:
    """A person acts: the keys that are held decide each step, in a window that shows frames.

    Args:
        keys: "left=0", "left+up=[0, 1]", and "none=2" for no key, with actions as JSON; by default
            those that the environment names (`get_keys_to_action`).

    Raises:
        ConfigurationError: where neither names keys, or one is unknown, or an action is not of the
            space.
    """

    def __init__(self, env: Env, keys: Sequence[str]) -> None:
        self._window = Window("recording", env.metadata.get("render_fps") or DEFAULT_FPS)
        import pygame

        self._pygame, self._env = pygame, env
        own: dict[Any, Any] = getattr(env.unwrapped, "get_keys_to_action", dict)()
        named = dict(map(self._parsed, keys)) or {
            frozenset(key if isinstance(key, int) else ord(key) for key in held): action
            for held, action in own.items()
        }
        if not named:
            raise ConfigurationError(
                "no keys: the environment does not name any",
                hint="--key left=0 --key right=2 --key none=1",
            )
        space: Any = env.action_space
        idle = int(space.start) if isinstance(space, spaces.Discrete) else space.sample() * 0
        self._idle: Any = named.pop(frozenset(), idle)
        self._actions = sorted(named.items(), key=lambda item: -len(item[0]))

    def act(self, obs: Any) -> Any:
        """The action of the most held keys; EvaluationStopped once the window is closed."""
        with guarded("render", self._env):
            frame = np.asarray(self._env.render())
        self._window.show(frame)
        held = self._pygame.key.get_pressed()
        for keys, action in self._actions:
            if all(held[key] for key in keys):
                return action
        return self._idle

    def _parsed(self, text: str) -> tuple[frozenset[int], Any]:
        names, equals, value = text.partition("=")
        space = self._env.action_space
        try:
            if not equals:
                raise ValueError("expected KEY=ACTION")
            given = json.loads(value)
            action = int(given) if space.shape == () else np.array(given, space.dtype)
            codes = [] if names == "none" else map(self._pygame.key.key_code, names.split("+"))
            keys = frozenset(codes)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"--key {text}: {error}") from None
        if not space.contains(action):
            raise ConfigurationError(f"--key {text}: {value} is no action of {space}")
        return keys, action
