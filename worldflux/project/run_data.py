"""What [data] and its neighbours ask of a run's data, checked before anything is built."""

from __future__ import annotations

from worldflux.core.world_model import WorldModel
from worldflux.data.offline import check_fits
from worldflux.data.recorded import (
    MINARI,
    NO_ENVIRONMENT,
    OFFLINE_SOURCES,
    KnownEnvironment,
    OfflineData,
    open_offline,
)
from worldflux.data.sources import CollectionSchedule
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import ConfigurationError

from .environments import measured_environment
from .loader import Project


def data_mode(project: Project) -> str:
    """How the manifest calls the run's data: "online", "offline" or "random"."""
    source = project.sections.data.source
    return {"gym": "online", "random": "random"}.get(source, "offline")


def _error(project: Project, message: str, key: str, hint: str) -> ConfigurationError:
    """A mistake at a key of worldflux.toml."""
    return ConfigurationError(message, where=project.where(*key.split(".")), hint=hint)


def has_environment(project: Project) -> bool:
    """Whether there is an environment to act in; recorded data alone can do without one."""
    if project.sections.environment != NO_ENVIRONMENT:
        return True
    if project.sections.data.source in OFFLINE_SOURCES:
        return False
    raise _error(
        project,
        f'environment = "{NO_ENVIRONMENT}" needs recorded data',
        "environment",
        f"set data.source to one of {', '.join(OFFLINE_SOURCES)}, or name an environment",
    )


def open_project_data(project: Project) -> OfflineData | None:
    """The recorded data that [data] names, its columns checked; None for other sources."""
    section = project.sections.data
    source = section.source
    if source not in OFFLINE_SOURCES:
        return None
    of_minari = source == MINARI
    key, example = ("dataset", "D4RL/pen/human-v2") if of_minari else ("path", f"steps.{source}")
    given = section.dataset if of_minari else section.path
    if given is None:
        message = f'data.source = "{source}" needs data.{key}'
        raise _error(project, message, "data.source", f'{key} = "{example}"')
    known = None
    if has_environment(project):
        env_id, measured = project.sections.environment, measured_environment(project)
        spaces, limit = measured.spaces, measured.spec.time_limit
        known = KnownEnvironment(env_id, spaces.observation, spaces.action, limit)
    location = given if of_minari else str(project.root / given)
    return open_offline(source, location, known, section.dones)


def run_spec(project: Project, offline: OfflineData | None) -> tuple[EnvironmentSpec, float]:
    """What is observed and done, and the seconds of a step where the agent collects (else 0)."""
    if not has_environment(project):
        assert offline is not None
        offline.require_meaning()
        return offline.spec(NO_ENVIRONMENT), 0.0
    measured = measured_environment(project, timed=data_mode(project) == "online")
    if offline is not None:
        check_fits(offline, measured.spec)
    return measured.spec, measured.step_s


def replay_streams(project: Project) -> int:
    """Streams of the run's replay: one an environment, one for data from elsewhere."""
    online = data_mode(project) == "online"
    return project.sections.online_collection.num_envs if online else 1


def replay_capacity(project: Project, offline: OfflineData | None) -> int:
    """Rows that the replay is made for: what [data] says, or all that was recorded."""
    capacity = project.sections.data.buffer_capacity
    if offline is None:
        return capacity
    if offline.num_rows > capacity:
        raise _error(
            project,
            f"the recorded data has {offline.num_rows:,} rows, data.buffer_capacity is "
            f"{capacity:,}",
            "data.buffer_capacity",
            f"worldflux train --set data.buffer_capacity={offline.num_rows}",
        )
    return max(2, offline.num_rows)


def sequence_length(project: Project, model: WorldModel) -> int:
    return project.training_config().resolve(model.config).sequence_length


def check_settings(project: Project, model: WorldModel) -> None:
    """Refuse settings that contradict one another, before a run begins."""
    _check_lengths(project, model)
    evaluation = project.sections.evaluation
    if evaluation.episodes == 0 and evaluation.stop_at_return is not None:
        raise _error(
            project,
            "evaluation.stop_at_return needs evaluations; evaluation.episodes = 0 asks for none",
            "evaluation.stop_at_return",
            "worldflux train --set evaluation.episodes=10",
        )
    native = project.sections.online_collection.vector == "native"
    if evaluation.environment == "training" and (native or data_mode(project) != "online"):
        raise _error(
            project,
            'evaluation.environment = "training" needs an agent that collects its own data in '
            "environments that are stepped one by one",
            "evaluation.environment",
            'set online_collection.vector = "sync"' if native else "leave it out",
        )


def _check_lengths(project: Project, model: WorldModel) -> None:
    """The model must be able to learn from a sequence, and the replay to hold one."""
    least, length = model.config.training_recipe().least_rows, sequence_length(project, model)
    if length < least:
        raise _error(
            project,
            f"training.sequence_length = {length}, and {project.sections.model} learns from "
            f"sequences of at least {least} steps",
            "training.sequence_length",
            f"worldflux train --set training.sequence_length={least}, or leave it out",
        )
    capacity, streams = project.sections.data.buffer_capacity, replay_streams(project)
    if capacity // streams < length:
        raise _error(
            project,
            f"data.buffer_capacity = {capacity:,} keeps {capacity // streams} steps of each of "
            f"{streams} environments; one training sequence has {length}",
            "data.buffer_capacity",
            f"worldflux train --set data.buffer_capacity={length * streams}, or more",
        )


def collection_schedule(project: Project, model: WorldModel) -> CollectionSchedule:
    """How experience and updates alternate: as set, else as the model's family does."""
    online, recipe = project.sections.online_collection, model.config.training_recipe()
    warmup = online.warmup_transitions
    warmup = recipe.warmup_transitions if warmup is None else warmup
    pretrain = recipe.pretrain if online.pretrain is None else online.pretrain
    ratio = project.training_config().resolve(model.config).update_ratio
    per_update = online.collect_steps_per_update
    return CollectionSchedule(
        warmup_transitions=warmup,
        pretrain_updates=warmup if pretrain else 0,
        steps_per_update=1 / ratio if per_update is None else per_update,
    )
