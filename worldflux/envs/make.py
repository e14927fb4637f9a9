"""From a Gymnasium id to an environment, with a clear word when something is missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import gymnasium
from gymnasium import error as gym_error

from worldflux.errors import EnvironmentSetupError, MissingDependencyError, nearest

from . import dm_control

# Namespace or id prefix -> (module that must import, extra that brings it).
_EXTRAS = {
    "ALE/": ("ale_py", "atari"),
    dm_control.PREFIX: ("dm_control", "dmc"),
}
# Our own environments -> where they are.
_OWN = {"worldflux/Catch-v0": "worldflux.envs.catch:Catch"}
_MUJOCO = ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Inverted", "Pusher", "Reacher", "Swimmer")


def make_environment(env_id: str, render_mode: str | None = None, **kwargs: Any) -> gymnasium.Env:
    """Build one environment by its Gymnasium id.

    Raises:
        MissingDependencyError: naming the extra and its install command.
        EnvironmentSetupError: when the id is unknown or the environment cannot be built.
    """
    _require_extra(env_id)
    register_own()
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # pygame renders without a screen
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    try:
        return gymnasium.make(env_id, render_mode=render_mode, **kwargs)
    except gym_error.DependencyNotInstalled as error:
        raise _missing(env_id, str(error)) from None
    except gym_error.Error as error:
        raise EnvironmentSetupError(
            f"environment {env_id!r} cannot be made: {error}", hint=_near(env_id)
        ) from None
    except (ModuleNotFoundError, ImportError) as error:
        raise _missing(env_id, str(error)) from None
    except (TypeError, ValueError) as error:
        raise EnvironmentSetupError(f"environment {env_id!r} cannot be made: {error}") from None


def register_own() -> None:
    """Make our own environments known to Gymnasium; more than once does no harm."""
    for env_id, entry_point in _OWN.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point)


def _require_extra(env_id: str) -> None:
    for prefix, (module, extra) in _EXTRAS.items():
        if not env_id.startswith(prefix):
            continue
        if importlib.util.find_spec(module) is None:
            raise MissingDependencyError(
                f"environment {env_id!r} needs the package {module!r}, which is not installed",
                hint=f"pip install 'worldflux[{extra}]'",
            )
        if prefix == "ALE/":
            gymnasium.register_envs(importlib.import_module(module))
        else:
            dm_control.register_tasks()


def _missing(env_id: str, reason: str) -> MissingDependencyError:
    extra = "mujoco" if env_id.startswith(_MUJOCO) else "classic-control"
    install = "worldflux[mujoco]" if extra == "mujoco" else "gymnasium[all]"
    return MissingDependencyError(
        f"environment {env_id!r} needs a package that is not installed: {reason}",
        hint=f"pip install '{install}'",
    )


def _near(env_id: str) -> str:
    hits = nearest(env_id, list(gymnasium.registry))
    if not hits:
        return "list the known ids with: python -c 'import gymnasium; gymnasium.pprint_registry()'"
    return "did you mean " + " or ".join(map(repr, hits)) + "?"
