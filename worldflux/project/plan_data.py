"""The data of a project: where it comes from, recorded data opened, and what is observed."""

from __future__ import annotations

import os
from typing import Any

from worldflux.data.offline import check_fits
from worldflux.data.recorded import (
    LEROBOT,
    MINARI,
    OFFLINE_SOURCES,
    KnownEnvironment,
    OfflineData,
    open_offline,
)
from worldflux.data.task_data import joined_tasks
from worldflux.envs.namespaces import NO_ENVIRONMENT
from worldflux.envs.spec import EnvironmentSpec
from worldflux.envs.worker import Spaces
from worldflux.envs.wrappers import Preparation
from worldflux.errors import ConfigurationError

from .environments import Measured, measured_environment
from .loader import Project
from .tasks import environment_of

OFFLINE, OFFLINE_ONLINE = "offline", "offline_online"


def data_mode(project: Project) -> str:
    """How the manifest calls the run's data: "online", "offline", "offline_online" or "random"."""
    source = project.sections.data.source
    after = project.sections.online_collection.after_offline_updates
    recorded = OFFLINE if after is None else OFFLINE_ONLINE
    return {"gym": "online", "random": "random"}.get(source, recorded)


def collects(project: Project) -> bool:
    """Whether the agent acts to collect its own data."""
    return data_mode(project) in ("online", OFFLINE_ONLINE)


def setting_error(project: Project, message: str, key: str, hint: str) -> ConfigurationError:
    """A mistake at a key of worldflux.toml."""
    return ConfigurationError(message, where=project.where(*key.split(".")), hint=hint)


def has_environment(project: Project) -> bool:
    """Whether there is an environment to act in; recorded data alone can do without one."""
    if project.sections.environment != NO_ENVIRONMENT:
        return True
    if data_mode(project) == OFFLINE:
        return False
    if data_mode(project) == OFFLINE_ONLINE:
        raise setting_error(
            project,
            f'environment = "{NO_ENVIRONMENT}": the agent has nothing to collect in',
            "online_collection.after_offline_updates",
            "leave it out, or set environment to the one that the data was recorded in",
        )
    raise setting_error(
        project,
        f'environment = "{NO_ENVIRONMENT}" needs recorded data',
        "environment",
        f"set data.source to one of {', '.join(OFFLINE_SOURCES)}, or name an environment",
    )


def open_project_data(project: Project) -> OfflineData | None:
    """The recorded data that [data] names, its columns checked; None for other sources."""
    section = project.sections.data
    source = section.source
    of_minari = source == MINARI
    key, example = ("dataset", "D4RL/pen/human-v2") if of_minari else ("path", f"steps.{source}")
    given = section.dataset if of_minari else section.path
    _refuse_unread(project)
    if source not in OFFLINE_SOURCES:
        return None
    if given is None:
        message = f'data.source = "{source}" needs data.{key}'
        raise setting_error(project, message, "data.source", f'{key} = "{example}"')
    known = None
    if has_environment(project):
        env_id, measured = project.sections.environment, measured_environment(project)
        spaces, limit = measured.spaces, measured.spec.time_limit
        known = KnownEnvironment(env_id, spaces.observation, spaces.action, limit)
    location = given if of_minari else str(project.root / os.path.expanduser(given))
    size: Any = project.sections.environment_kwargs.get("image_size")
    image_size = Preparation(False, size).image_size
    return open_offline(source, location, known, section.dones, image_size, section.features)


def _refuse_unread(project: Project) -> None:
    """A place of data that the source does not read."""
    section = project.sections.data
    files = [source for source in OFFLINE_SOURCES if source != MINARI]
    for key, readers in (("path", files), ("dataset", [MINARI]), ("features", [LEROBOT])):
        if getattr(section, key) is not None and section.source not in readers:
            message = f'data.{key} is not read where data.source = "{section.source}"'
            hint = f"set data.source ({', '.join(readers)}), or leave data.{key} out"
            raise setting_error(project, message, f"data.{key}", hint)


def open_task_data(
    project: Project, measured: Measured
) -> tuple[list[OfflineData], OfflineData | None]:
    """The recorded data of each task, and of all; none where [data] names no source of it."""
    section, found = project.sections.data, []
    recorded = section.source in OFFLINE_SOURCES
    for key in ("path", "dataset"):
        if recorded and getattr(section, key) is not None:
            raise setting_error(
                project,
                f"data.{key} is not read: [[tasks]] have each their own data",
                f"data.{key}",
                f"write data = in each [[tasks]], and leave data.{key} out",
            )
    for index, task in enumerate(project.sections.tasks):
        if recorded != (task.data is not None):
            message = f'data.source = "{section.source}": task {task.name} '
            message += "needs data" if recorded else "has data, which is not read"
            hint = 'write data = "FILE" in each [[tasks]] and data.source = "npz", or neither'
            raise ConfigurationError(message, where=project.where("tasks"), hint=hint)
        if task.data is None:
            continue
        env_id, _ = environment_of(project, index)
        own, is_id = measured.own_spaces[index], section.source == MINARI
        limit = None if measured.tasks is None else measured.tasks.tasks[index].time_limit
        cut = task.name if limit is not None and limit == task.episode_length else None
        known = KnownEnvironment(env_id, own.observation, own.action, limit, cut)
        place = task.data if is_id else str(project.root / os.path.expanduser(task.data))
        found.append(
            open_offline(section.source, place, known, section.dones, None, section.features)
        )
    joined = joined_tasks(found, measured.tasks.padding) if found and measured.tasks else None
    return found, joined


def run_spec(
    project: Project, offline: OfflineData | None
) -> tuple[EnvironmentSpec, Spaces, float]:
    """What is observed and done, and the seconds of a step where the agent collects (else 0)."""
    if not has_environment(project):
        assert offline is not None
        offline.require_meaning()
        spaces = Spaces(offline.observation_space, offline.action_space, None, None)
        return offline.spec(NO_ENVIRONMENT), spaces, 0.0
    measured = measured_environment(project, timed=collects(project))
    if offline is not None:
        check_fits(offline, measured.spec)
    return measured.spec, measured.spaces, measured.step_s
