"""The environment of a project: its id and arguments, or `make_env` of its own dataset.py."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from worldflux.clock import mean_seconds
from worldflux.envs.make import make_environment, make_native
from worldflux.envs.namespaces import namespace_of
from worldflux.envs.requirements import choose_renderer
from worldflux.envs.spec import EnvironmentSpec
from worldflux.envs.vector import VectorEnvironment
from worldflux.envs.worker import Spaces
from worldflux.envs.wrappers import PREPARATIONS, prepared_environment
from worldflux.errors import (
    ConfigurationError,
    EnvironmentFault,
    EnvironmentSetupError,
    WorldFluxError,
)

from .dataset_file import FILE, enter_project, own_make_env
from .document import shown_path
from .loader import Project
from .provenance import environment_name
from .sections import OnlineCollectionSection
from .tasks import TaskSet, alone

MakeEnvironment = Callable[[str | None], Any]
OnRestart = Callable[[EnvironmentFault], None]

MAX_PARALLEL = 32  # environments that play evaluation episodes at the same time
# Where neither the environment nor the user says how long an episode may last: far more than tasks
# with an end take, and less where random episodes show that there need be none.
LONGEST, LONGEST_ENDLESS = 10_000, 1_000


def environment_maker(
    root: Path | None, env_id: str, arguments: Mapping[str, Any] | None = None
) -> MakeEnvironment:
    """A function `render_mode -> environment`, which may import modules of the project's folder."""
    given = dict(arguments or {})
    make_env = None if root is None else own_make_env(root)
    if root is None or make_env is None:
        make = _in_project(root, make_environment)
        return lambda render_mode: make(env_id, render_mode, **given)
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
        # One that can be made but cannot draw costs the videos and not the run.
        return make_env(render_mode=None, **chosen, **given)

    if not ours:
        return _in_project(root, own)
    return _in_project(root, lambda render_mode: prepared_environment(own, render_mode, **ours))


@dataclass(frozen=True)
class Measured:
    """What one copy of a project's environment showed; seconds of a step, 0 if it was not timed."""

    spec: EnvironmentSpec
    spaces: Spaces
    step_s: float
    tasks: TaskSet | None = None
    own_spaces: tuple[Spaces, ...] = ()  # of each task


def measured_environment(project: Project, timed: bool = False) -> Measured:
    """Make one copy of a project's environment, step it for a moment if `timed`, and close it.

    Of several tasks it makes one copy each, first alone, then padded.
    """
    if project.sections.tasks:
        return _measured_tasks(project, timed)
    sections = project.sections
    env_id, arguments = sections.environment, sections.environment_kwargs
    try:
        make = environment_maker(project.root, env_id, arguments)
        name = environment_name(project.root, env_id)
        envs = vector_environment(make, env_id, 1, name=name, online=sections.online_collection)
    except EnvironmentSetupError as error:
        error.where = error.where or _place(project, error.message)
        raise
    try:
        return Measured(envs.spec, envs.spaces, _step_seconds(envs) if timed else 0.0)
    finally:
        envs.close()


def _place(project: Project, problem: str) -> str:
    """Where the file sets the argument that a problem of the environment names, else any, else the
    environment."""
    arguments = project.sections.environment_kwargs
    for name in arguments:
        if f"'{name}'" in problem or re.search(
            rf"environment_kwargs\.{re.escape(name)}\b", problem
        ):
            return project.where("environment_kwargs", name)
    return project.where("environment_kwargs" if arguments else "environment")


def _measured_tasks(project: Project, timed: bool) -> Measured:
    online, own = project.sections.online_collection, []
    for index, task in enumerate(project.sections.tasks):
        try:
            own.append(measured_environment(alone(project, index)))
        except WorldFluxError as error:
            error.message = f"task {task.name}: {error.message}"
            raise
    tasks = TaskSet.of(project, [measured.spec for measured in own])
    makers = tasks.makers(partial(environment_maker, project.root), online.check_bounds)
    env_id = project.sections.environment
    envs = vector_environment(makers, env_id, 1, online=online, tasks=tasks)
    try:
        step_s = _step_seconds(envs) / len(makers) if timed else 0.0
        own_spaces = tuple(measured.spaces for measured in own)
        return Measured(envs.spec, envs.spaces, step_s, tasks, own_spaces)
    finally:
        envs.close()


def _step_seconds(envs: VectorEnvironment) -> float:
    rng = np.random.default_rng(0)
    last = [envs.reset(0)]

    def step() -> None:
        drawn = envs.spec.random_actions(rng, envs.num_envs, last[0].obs)
        last[0] = envs.step(drawn)

    return mean_seconds(step)


def environment_problem(env_id: str, root: Path) -> WorldFluxError | None:
    """Why this environment cannot be built in the folder `root`; None where it can."""
    make = _in_project(root, make_environment)
    try:
        vector_environment(lambda render_mode: make(env_id, render_mode), env_id, 1).close()
    except WorldFluxError as error:
        return error
    return None


def vector_environment(
    make: MakeEnvironment | Sequence[MakeEnvironment],
    env_id: str,
    num_envs: int,
    *,
    name: str | None = None,
    render_first: bool = False,
    online: OnlineCollectionSection | None = None,
    mode: Literal["sync", "async"] = "sync",
    on_restart: OnRestart | None = None,
    tasks: TaskSet | None = None,
) -> VectorEnvironment:
    """N environments, held to the rules of `online`; with `render_first` the first one draws.

    Of several `tasks`, with one of `make` for each, N of each: number i plays task i % tasks.
    Errors call them `name`, by default `env_id`.
    """
    makers = [make] if callable(make) else list(make)

    def build(index: int) -> Any:
        return makers[index % len(makers)]("rgb_array" if render_first and index == 0 else None)

    rules = OnlineCollectionSection() if online is None else online
    count = num_envs * len(makers)
    envs = VectorEnvironment(
        name or env_id, build, count, mode=mode, on_restart=on_restart, **_discipline(rules)
    )
    envs.spec = replace(envs.spec, env_id=env_id)
    if tasks is not None:
        envs.spec = tasks.spec(envs.spec)
    return envs


def played_at_once(episodes: int, tasks: TaskSet | None) -> int:
    """Copies, of each task, that play so many evaluation episodes."""
    return min(episodes, max(1, MAX_PARALLEL // (len(tasks.tasks) if tasks else 1)))


def native_environment(project: Project, on_restart: OnRestart) -> VectorEnvironment:
    """The environments that an agent collects in, in the vector form of their own family."""
    env_id, online = project.sections.environment, project.sections.online_collection
    make, arguments = _in_project(project.root, make_native), project.sections.environment_kwargs
    return VectorEnvironment(
        env_id,
        lambda count: make(env_id, count, **arguments),
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


def episode_limit(spec: EnvironmentSpec, limit: int | None) -> int | None:
    """Agent steps after which an evaluation episode is cut; None where it ends by itself."""
    if limit is not None:
        return limit
    declared = spec.time_limit is not None or namespace_of(spec.env_id).ends_itself
    return None if declared else LONGEST


def _in_project(root: Path | None, make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, which may import from the project's folder; it is called in another process."""

    def build(*args: Any, **kwargs: Any) -> Any:
        if root is not None:
            enter_project(root)
        return make(*args, **kwargs)

    return build
