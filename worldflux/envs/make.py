"""From an environment id and its arguments to an environment, with a clear word when one is wrong.

Ids are Gymnasium's, of every namespace: `CartPole-v1`, `HalfCheetah-v5`, `ALE/Pong-v5`,
`dm_control/walker-walk-v0`, and `module:Env-v0` for one that `module` registers.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
from gymnasium import error as gym_error
from gymnasium.envs.registration import load_env_creator

from worldflux.errors import (
    EnvironmentSetupError,
    MissingDependencyError,
    WorldFluxError,
    did_you_mean,
    nearest,
)
from worldflux.optional import install_command, require

from . import atari, dm_control
from .faults import described, place, renderer_hint
from .mujoco_log import take_warnings
from .preparation import IMAGE_SIZE, PREPARATIONS, Preparation, preparation, prepared_by, stacked
from .requirements import broken_pairs, choose_renderer, pip_install

# Namespace -> (module that must import, extra that brings it).
_EXTRAS = {
    atari.PREFIX: ("ale_py", "atari"),
    dm_control.PREFIX: ("dm_control", "dmc"),
}
# Our own environments -> where they are.
_OWN = {"worldflux/Catch-v0": "worldflux.envs.catch:Catch"}
_MUJOCO = ("Ant", "HalfCheetah", "Hopper", "Humanoid", "Inverted", "Pusher", "Reacher", "Swimmer")
# Arguments of gymnasium.make itself and of the Atari protocol, beside an environment's own.
_ALWAYS_TAKEN = ("max_episode_steps", "disable_env_checker")
_ATARI_TAKEN = ("noop_max", "terminal_on_life_loss")


def make_environment(
    env_id: str,
    render_mode: str | None = None,
    *,
    pixels: bool = False,
    image_size: int | list[int] | tuple[int, int] | None = None,
    frame_stack: int = 1,
    action_repeat: int | None = None,
    **arguments: Any,
) -> gymnasium.Env:
    """Build one environment by its id.

    Args:
        pixels, image_size, frame_stack, action_repeat: see `Preparation`; a single `image_size` is
            the side of a square.
        arguments: the environment's own; for `ALE/` also those of `AtariProtocol`.

    Raises:
        MissingDependencyError: naming the extra and its install command.
        EnvironmentSetupError: when the id or an argument is unknown, or it cannot be built.
    """
    prepared = preparation(pixels, image_size, frame_stack, action_repeat)
    _get_ready(env_id)
    if env_id.startswith(atari.PREFIX):
        env = _atari(env_id, render_mode, prepared, arguments)
    elif env_id.startswith(dm_control.PREFIX):
        env = _control(env_id, render_mode, prepared, arguments)
    else:
        env = _any(env_id, render_mode, prepared, arguments)
    return stacked(env, prepared)


def make_native(env_id: str, num_envs: int, **arguments: Any) -> gymnasium.vector.VectorEnv:
    """The environment's own vector form with `num_envs` copies.

    Raises:
        EnvironmentSetupError: when it has none, or when it cannot be built.
    """
    _get_ready(env_id)
    spec = _registered(env_id)
    ours = sorted(set(arguments) & set(PREPARATIONS))
    reason: str | None = None
    if env_id.startswith(atari.PREFIX):
        reason = (
            "draws idle starts and sticky actions from streams of its own, so that its games are "
            "not those of the Atari protocol here, and none could be played again on resume"
        )
    elif spec.vector_entry_point is None:
        reason = "does not exist here"
    elif ours:
        reason = f"is not prepared by {', '.join(ours)}"
    if reason is not None:
        raise EnvironmentSetupError(
            f"the native vector form of {env_id} {reason}",
            hint='set online_collection.vector = "sync" or "async"',
        )
    return _made(
        env_id,
        lambda: gymnasium.make_vec(
            env_id, num_envs, vectorization_mode="vector_entry_point", **arguments
        ),
    )


def frames_per_step(env_id: str, action_repeat: int | None = None) -> int:
    """Frames of the environment in one agent step, as published curves count them.

    It is the action repeat: the given one, or that of the namespace's protocol.
    """
    if action_repeat:
        return action_repeat
    if env_id.startswith(atari.PREFIX):
        return atari.ACTION_REPEAT
    return dm_control.ACTION_REPEAT if env_id.startswith(dm_control.PREFIX) else 1


def register_own() -> None:
    """Make our own environments known to Gymnasium; more than once does no harm."""
    for env_id, entry_point in _OWN.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point)


# --------------------------------------------------------------------------- by namespace


def _atari(
    env_id: str, render_mode: str | None, prepared: Preparation, arguments: dict[str, Any]
) -> gymnasium.Env:
    protocol = {name: arguments.pop(name) for name in _ATARI_TAKEN if name in arguments}
    if "frameskip" in arguments:
        raise EnvironmentSetupError(
            f"{env_id}: the frames of one action are the Atari protocol's, not frameskip's",
            hint="set environment_kwargs.action_repeat",
        )
    _check_arguments(env_id, arguments)
    wants = [name for name in ("pixels", "image_size", "frame_stack") if _is_set(prepared, name)]
    if wants and arguments.get("obs_type") == "ram":
        raise EnvironmentSetupError(
            f'{env_id} observes its memory (obs_type = "ram"), and environment_kwargs.{wants[0]} '
            "needs images",
            hint=f'leave out obs_type = "ram", or environment_kwargs.{wants[0]}',
        )
    emulator = _made(
        env_id, lambda: gymnasium.make(env_id, frameskip=1, **arguments, **_drawing(render_mode))
    )
    repeat = frames_per_step(env_id, prepared.action_repeat)
    size = prepared.image_size or IMAGE_SIZE
    return atari.AtariProtocol(emulator, size, action_repeat=repeat, **protocol)


def _control(
    env_id: str, render_mode: str | None, prepared: Preparation, arguments: dict[str, Any]
) -> gymnasium.Env:
    repeat = frames_per_step(env_id, prepared.action_repeat)
    _check_arguments(env_id, arguments)
    if prepared.image_size and not prepared.pixels:
        raise EnvironmentSetupError(
            f"environment_kwargs.image_size needs images; {env_id} observes numbers",
            hint="set environment_kwargs.pixels = true, or leave out environment_kwargs.image_size",
        )
    arguments = {
        "max_episode_steps": -(-dm_control.EPISODE_STEPS // repeat),
        "action_repeat": repeat,
        "pixels": prepared.pixels,
        "image_size": prepared.image_size or IMAGE_SIZE,
        **arguments,
    }
    return _made(env_id, lambda: gymnasium.make(env_id, **arguments, **_drawing(render_mode)))


def _any(
    env_id: str, render_mode: str | None, prepared: Preparation, arguments: dict[str, Any]
) -> gymnasium.Env:
    _check_arguments(env_id, arguments)
    if prepared.pixels and not _can_draw(env_id):
        raise EnvironmentSetupError(
            f"{env_id} cannot draw, so it cannot be observed as pixels",
            hint='give it a render_mode "rgb_array", or leave out environment_kwargs.pixels',
        )
    if prepared.pixels or render_mode is not None:
        render_mode = "rgb_array" if _can_draw(env_id) else None
    _creator(env_id)  # which imports MuJoCo, where the environment needs it
    take_warnings()
    env = _made(env_id, lambda: gymnasium.make(env_id, **arguments, **_drawing(render_mode)))
    return prepared_by(env, prepared)


def _is_set(prepared: Preparation, name: str) -> bool:
    return bool(getattr(prepared, name) != getattr(Preparation(), name))


def _drawing(render_mode: str | None) -> dict[str, Any]:
    """An environment that is not asked to draw need not take the argument."""
    return {} if render_mode is None else {"render_mode": render_mode}


# --------------------------------------------------------------------------- what may be wrong


def _get_ready(env_id: str) -> None:
    """Register what the id's namespace needs; the renderers must not ask for a screen."""
    register_own()
    choose_renderer()
    module, colon, _ = env_id.rpartition(":")
    if colon:
        _imported(env_id, module)
    for prefix, (module, extra) in _EXTRAS.items():
        if not env_id.startswith(prefix):
            continue
        require(f"environment {env_id!r}", extra, module)
        if prefix == atari.PREFIX:
            ale = importlib.import_module(module)
            ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)  # no banner from each process
            gymnasium.register_envs(ale)
            continue
        for obstacle in broken_pairs():
            if obstacle.problem.startswith(module):
                raise MissingDependencyError(obstacle.problem, hint=obstacle.command)
        dm_control.register_tasks()


def _made(env_id: str, build: Callable[[], Any]) -> Any:
    try:
        return build()
    except WorldFluxError:
        raise
    except (gym_error.DependencyNotInstalled, ModuleNotFoundError) as error:
        raise _missing(env_id, error) from None
    except gym_error.Error as error:
        raise EnvironmentSetupError(
            f"environment {env_id!r} cannot be made: {error}", hint=_near(env_id)
        ) from None
    except Exception as error:
        silent = "'render_mode'" in str(error)
        cannot_draw = "it cannot draw: set gameplay.enabled = false" if silent else None
        raise EnvironmentSetupError(
            f"environment {env_id!r} cannot be made: {described(error)}",
            where=place(error),
            hint=renderer_hint(error) or cannot_draw,
        ) from None


def _registered(env_id: str) -> Any:
    return _made(env_id, lambda: gymnasium.spec(env_id.rpartition(":")[2]))


def _can_draw(env_id: str) -> bool:
    """Whether its constructor can be asked for frames; told by its signature and its metadata."""
    creator = _creator(env_id)
    parameters = inspect.signature(creator).parameters
    takes = "render_mode" in parameters or _takes_any(parameters)
    metadata = getattr(creator, "metadata", None)  # a function has none
    return takes and (metadata is None or "rgb_array" in metadata.get("render_modes", ()))


def _creator(env_id: str) -> Callable[..., Any]:
    """What the id is registered to be built by."""
    entry_point = _registered(env_id).entry_point
    if isinstance(entry_point, str):
        entry_point = _made(env_id, lambda: load_env_creator(entry_point))
    if entry_point is None:
        raise EnvironmentSetupError(
            f"{env_id} has only a vector form",
            hint="register it with an entry_point that builds a single environment",
        )
    found: Callable[..., Any] = entry_point
    return found


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _check_arguments(env_id: str, arguments: dict[str, Any]) -> None:
    """Refuse an argument that the environment's constructor does not take."""
    if not arguments:
        return
    parameters = inspect.signature(_creator(env_id)).parameters
    if _takes_any(parameters):
        return  # it passes them on: the constructor itself will tell
    own = [name for name in parameters if name not in ("self", "render_mode", "frameskip")]
    known = [*own, *_ALWAYS_TAKEN, *PREPARATIONS]
    if env_id.startswith(atari.PREFIX):
        known += _ATARI_TAKEN
    for name in arguments:
        if name not in known:
            hint = did_you_mean(name, known) or "it takes " + ", ".join(sorted(set(known)))
            raise EnvironmentSetupError(f"{env_id} takes no argument {name!r}", hint=hint)


def _imported(env_id: str, module: str) -> None:
    """Import the module that registers a `module:Env-v0`."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise MissingDependencyError(
                f"environment {env_id!r} needs the package {error.name!r}, which is not installed",
                hint=pip_install(error.name or ""),
            ) from None
        raise EnvironmentSetupError(
            f"environment {env_id!r}: there is no module {error.name!r}",
            hint=f"put {module.replace('.', '/')}.py beside worldflux.toml, or install its package",
        ) from None
    except Exception as error:
        raise EnvironmentSetupError(
            f"environment {env_id!r}: importing {module!r} raised {type(error).__name__}: {error}"
        ) from None


def _missing(env_id: str, error: Exception) -> MissingDependencyError:
    """What is not installed, with a command: our extra, Gymnasium's own advice, or the module."""
    module = getattr(error, "name", None)
    commands = [install_command("mujoco")] if env_id.startswith(_MUJOCO) else None
    if commands is None:
        commands = re.findall(r"pip install [^`]+", str(error))
    if not commands and module is not None:
        commands = [pip_install(module)]
    return MissingDependencyError(
        f"environment {env_id!r} needs a package that is not installed: {error}",
        where=place(error) if module is not None else None,
        hint=" && ".join(commands) or None,
    )


def _near(env_id: str) -> str:
    hits = nearest(env_id, list(gymnasium.registry))
    if not hits:
        return "list the known ids with: python -c 'import gymnasium; gymnasium.pprint_registry()'"
    return "did you mean " + " or ".join(map(repr, hits)) + "?"
