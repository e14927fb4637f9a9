"""From an environment id and its arguments to an environment, or a message that says what to do.

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
    described,
    did_you_mean,
    nearest,
    place,
)
from worldflux.optional import install_command, require

from .faults import renderer_hint
from .namespaces import Namespace, namespace_of
from .requirements import (
    broken_pairs,
    choose_renderer,
    pip_install,
    take_mujoco_warnings,
)
from .wrappers import PREPARATIONS, Preparation

CATCH = "worldflux/Catch-v0"  # our own environment
# Arguments of gymnasium.make itself, next to an environment's own.
_ALWAYS_TAKEN = ("max_episode_steps", "disable_env_checker")


def make_environment(
    env_id: str,
    render_mode: str | None = None,
    *,
    pixels: bool = False,
    image_size: int | list[int] | tuple[int, int] | None = None,
    frame_stack: int = 1,
    action_repeat: int | None = None,
    action_mask: bool = False,
    **arguments: Any,
) -> gymnasium.Env:
    """Build one environment by its id.

    Args:
        pixels, image_size, frame_stack, action_repeat, action_mask: see `Preparation`.
        arguments: the environment's own; for `ALE/` also those of `AtariProtocol`.

    Raises:
        MissingDependencyError: naming the extra and its install command.
        EnvironmentSetupError: when the id or an argument is unknown, or it cannot be built.
    """
    size: Any = image_size
    prepared = Preparation(pixels, size, frame_stack, action_repeat, action_mask)
    namespace = _register(env_id)
    if namespace.protocol is None:
        env = _any(env_id, render_mode, prepared, arguments)
    else:
        protocol: Any = importlib.import_module(namespace.protocol)
        env = protocol.build(env_id, render_mode, prepared, arguments)
    return prepared.stack(env)


def make_native(env_id: str, num_envs: int, **arguments: Any) -> gymnasium.vector.VectorEnv:
    """The environment's own vector form with `num_envs` copies, or EnvironmentSetupError."""
    namespace, spec = _register(env_id), _registered(env_id)
    ours = sorted(set(arguments) & set(PREPARATIONS))
    reason = namespace.native_fault
    if reason is None and spec.vector_entry_point is None:
        reason = "does not exist here"
    elif reason is None and ours:
        reason = f"is not prepared by {', '.join(ours)}"
    if reason is not None:
        raise EnvironmentSetupError(
            f"the native vector form of {env_id} {reason}",
            hint='set online_collection.vector = "sync" or "async"',
        )
    mode = "vector_entry_point"
    envs: gymnasium.vector.VectorEnv = _made(
        env_id,
        lambda: gymnasium.make_vec(env_id, num_envs, vectorization_mode=mode, **arguments),
    )
    return envs


def _any(
    env_id: str, render_mode: str | None, prepared: Preparation, arguments: dict[str, Any]
) -> gymnasium.Env:
    """An environment of a namespace that has no protocol."""
    check_arguments(env_id, arguments)
    if prepared.pixels and not _can_draw(env_id):
        raise EnvironmentSetupError(
            f"{env_id} cannot draw, so it cannot be observed as pixels",
            hint='give it a render_mode "rgb_array", or leave out environment_kwargs.pixels',
        )
    if prepared.pixels or render_mode is not None:
        render_mode = "rgb_array" if _can_draw(env_id) else None
    return prepared.apply(gym_environment(env_id, render_mode, **arguments))


def register_own() -> None:
    """Make our own environment known to Gymnasium; more than once does no harm."""
    if CATCH not in gymnasium.registry:
        gymnasium.register(CATCH, "worldflux.envs.catch:Catch")


def _register(env_id: str) -> Namespace:
    """Register what the id's namespace needs, and make sure that it is installed."""
    register_own()
    choose_renderer()
    module, colon, _ = env_id.rpartition(":")
    if colon:
        _import(env_id, module)
    namespace = namespace_of(env_id)
    if namespace.protocol is not None:
        require(f"environment {env_id!r}", namespace.choice, namespace.module)
        for obstacle in broken_pairs():
            if obstacle.problem.startswith(namespace.module):
                raise MissingDependencyError(obstacle.problem, hint=obstacle.command)
        importlib.import_module(namespace.protocol).register()
    return namespace


def _made(env_id: str, build: Callable[[], Any]) -> Any:
    """What `build` returns; what it raises becomes an error that says what to do."""
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


def gym_environment(env_id: str, render_mode: str | None, **arguments: Any) -> gymnasium.Env:
    """`gymnasium.make`; an environment that need not draw need not take a render_mode."""
    if render_mode is not None:
        arguments["render_mode"] = render_mode
    _creator(env_id)  # which imports MuJoCo, where the environment needs it
    take_mujoco_warnings()
    env: gymnasium.Env = _made(env_id, lambda: gymnasium.make(env_id, **arguments))
    return env


def _can_draw(env_id: str) -> bool:
    """Whether its constructor can be asked for frames, by its signature and its metadata."""
    parameters = inspect.signature(_creator(env_id)).parameters
    takes = "render_mode" in parameters or _takes_any(parameters)
    metadata = getattr(_creator(env_id), "metadata", None)  # a function has none
    return takes and (metadata is None or "rgb_array" in metadata.get("render_modes", ()))


def _registered(env_id: str) -> Any:
    return _made(env_id, lambda: gymnasium.spec(env_id.rpartition(":")[2]))


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


def check_arguments(env_id: str, arguments: Mapping[str, Any]) -> None:
    """Refuse an argument that the environment's constructor does not take."""
    if not arguments:
        return
    parameters = inspect.signature(_creator(env_id)).parameters
    if _takes_any(parameters):
        return  # it passes them on: the constructor itself will refuse
    own = [name for name in parameters if name not in ("self", "render_mode", "frameskip")]
    known = [*own, *_ALWAYS_TAKEN, *PREPARATIONS, *namespace_of(env_id).arguments]
    for name in arguments:
        if name not in known:
            hint = did_you_mean(name, known) or "it takes " + ", ".join(sorted(set(known)))
            raise EnvironmentSetupError(f"{env_id} takes no argument {name!r}", hint=hint)


def _takes_any(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def _import(env_id: str, module: str) -> None:
    """Import the module that registers a `module:Env-v0`."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise MissingDependencyError(
                f"environment {env_id!r} needs the package {error.name!r}, which is not installed",
                where=place(error),
                hint=pip_install(error.name or ""),
            ) from None
        raise EnvironmentSetupError(
            f"environment {env_id!r}: there is no module {error.name!r}",
            hint=f"put {module.replace('.', '/')}.py next to worldflux.toml, or install it",
        ) from None
    except Exception as error:
        raise EnvironmentSetupError(
            f"environment {env_id!r}: importing {module!r} raised {type(error).__name__}: {error}",
            where=place(error),
        ) from None


def _missing(env_id: str, error: Exception) -> MissingDependencyError:
    """What is not installed, with a command: our extra, Gymnasium's own advice, or the module."""
    module, extra = getattr(error, "name", None), namespace_of(env_id).extra
    commands = [install_command(extra)] if extra else re.findall(r"pip install [^`]+", str(error))
    if not commands and module is not None:
        commands = [pip_install(module)]
    return MissingDependencyError(
        f"environment {env_id!r} needs a package that is not installed: {error}",
        where=place(error) if module is not None else None,
        hint=" && ".join(commands) or None,
    )


def _near(env_id: str) -> str:
    known = {_unversioned(name): name for name in gymnasium.registry}
    hits = [known[name] for name in nearest(_unversioned(env_id), known, cutoff=0.65)]
    if not hits:
        return "list the known ids with: python -c 'import gymnasium; gymnasium.pprint_registry()'"
    return "did you mean " + " or ".join(map(repr, hits)) + "?"


def _unversioned(env_id: str) -> str:
    """Without the version, which would make short names alike."""
    return re.sub(r"-v\d+$", "", env_id)
