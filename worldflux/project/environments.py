"""The environment of a project: its id and arguments, or `make_env` of its own dataset.py."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from worldflux.envs.make import make_environment, make_native
from worldflux.envs.preparation import PREPARATIONS, prepared_environment
from worldflux.envs.requirements import choose_renderer
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import (
    ConfigurationError,
    EnvironmentFault,
    EnvironmentSetupError,
    WorldFluxError,
)

from .dataset_file import FILE, enter_project, own_make_env
from .document import shown_path
from .loader import Project
from .sections import OnlineCollectionSection

MakeEnvironment = Callable[[str | None], Any]
OnRestart = Callable[[EnvironmentFault], None]


def environment_maker(
    root: Path | None, env_id: str, arguments: Mapping[str, Any] | None = None
) -> MakeEnvironment:
    """A function `render_mode -> environment` for a project folder.

    Modules that lie beside worldflux.toml can be imported by it, as in `module:Env-v0`.

    Args:
        arguments: [environment_kwargs] of worldflux.toml.

    Raises:
        ConfigurationError: when dataset.py cannot be imported, or its make_env does not take what
            it is called with.
    """
    given = dict(arguments or {})
    make_env = None if root is None else own_make_env(root)
    if root is None or make_env is None:
        return lambda render_mode: _beside(root, make_environment)(env_id, render_mode, **given)
    # The id and the arguments may come from --set; a make_env that builds its own world need not
    # take them. What worldflux does around an environment, it does around this one.
    parameters = inspect.signature(make_env).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    foreign = [name for name in given if not takes_any and name not in parameters]
    ours = {name: given.pop(name) for name in foreign if name in PREPARATIONS}
    foreign = [name for name in foreign if name not in ours]
    where = shown_path(root / FILE)
    if foreign:
        raise ConfigurationError(
            f"[environment_kwargs] sets {', '.join(foreign)}, and make_env of dataset.py does not "
            "take it",
            where=where,
            hint="write def make_env(render_mode=None, environment=None, **arguments)",
        )
    chosen = {"environment": env_id} if "environment" in parameters else {}
    try:
        inspect.signature(make_env).bind(render_mode=None, **chosen, **given)
    except TypeError as error:
        line = getattr(getattr(make_env, "__code__", None), "co_firstlineno", 1)
        raise ConfigurationError(
            f"make_env of dataset.py cannot be called with render_mode=None: {error}",
            where=f"{where}:{line}",
            hint="write def make_env(render_mode=None)",
        ) from None

    def own(render_mode: str | None) -> Any:
        choose_renderer()
        try:
            return make_env(render_mode=render_mode, **chosen, **given)
        except Exception:
            if render_mode is None:
                raise
        # It may be made and cannot draw, which costs the videos and not the run.
        return make_env(render_mode=None, **chosen, **given)

    if not ours:
        return _beside(root, own)
    return _beside(root, lambda render_mode: prepared_environment(own, render_mode, **ours))


def measured_environment(project: Project) -> VectorEnvironment:
    """One copy of a project's environment, closed again: its `spec` and `spaces` stay readable.

    Raises:
        EnvironmentSetupError: at the key in worldflux.toml, when it cannot be made or does not fit.
    """
    sections = project.sections
    env_id, arguments = sections.environment, sections.environment_kwargs
    try:
        make = environment_maker(project.root, env_id, arguments)
        envs = vector_environment(make, env_id, 1, online=sections.online_collection)
    except EnvironmentSetupError as error:
        key = "environment_kwargs" if arguments else "environment"
        raise EnvironmentSetupError(
            error.message, where=error.where or project.where(key), hint=error.hint
        ) from None
    envs.close()
    return envs


def environment_problem(env_id: str, root: Path) -> WorldFluxError | None:
    """Why this environment cannot be built here, beside what lies in `root`; None where it can."""
    try:
        vector_environment(
            lambda render_mode: _beside(root, make_environment)(env_id, render_mode), env_id, 1
        ).close()
    except WorldFluxError as error:
        return error
    return None


def vector_environment(
    make: MakeEnvironment,
    env_id: str,
    num_envs: int,
    *,
    render_first: bool = False,
    online: OnlineCollectionSection | None = None,
    mode: Literal["sync", "async"] = "sync",
    on_restart: OnRestart | None = None,
) -> VectorEnvironment:
    """N environments; with `render_first` the first one draws frames.

    Args:
        online: what is done about an environment that breaks its word.
    """

    def build(index: int) -> Any:
        return make("rgb_array" if render_first and index == 0 else None)

    rules = OnlineCollectionSection() if online is None else online
    return VectorEnvironment(
        env_id, build, num_envs, mode=mode, on_restart=on_restart, **_discipline(rules)
    )


def collecting_environment(
    project: Project,
    make: MakeEnvironment,
    *,
    render_first: bool,
    on_restart: OnRestart,
) -> VectorEnvironment:
    """The environments that an agent collects in, as [online_collection] asks for them.

    Raises:
        EnvironmentSetupError: when the native vector form is wanted and does not exist.
    """
    env_id, online = project.sections.environment, project.sections.online_collection
    if online.vector != "native":
        return vector_environment(
            make,
            env_id,
            online.num_envs,
            render_first=render_first,
            online=online,
            mode=online.vector,
            on_restart=on_restart,
        )
    return VectorEnvironment(
        env_id,
        lambda count: _beside(project.root, make_native)(
            env_id, count, **project.sections.environment_kwargs
        ),
        online.num_envs,
        mode="native",
        on_restart=on_restart,
        **_discipline(online),
    )


def _discipline(online: OnlineCollectionSection) -> dict[str, Any]:
    return {
        "processes": online.processes,
        "on_env_error": online.on_env_error,
        "max_restarts": online.max_restarts,
        "step_timeout_s": online.step_timeout_s,
        "check_bounds": online.check_bounds,
    }


def _beside(root: Path | None, make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, which may import what lies in the project's folder; called in its own process."""

    def build(*args: Any, **kwargs: Any) -> Any:
        if root is not None:
            enter_project(root)
        return make(*args, **kwargs)

    return build
