"""The data of a run: collected by the agent, recorded elsewhere, or noise; as [data] says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from worldflux.core.world_model import WorldModel
from worldflux.data.collector import Collector
from worldflux.data.offline import (
    MINARI,
    NO_ENVIRONMENT,
    OFFLINE_SOURCES,
    Copied,
    KnownEnvironment,
    OfflineData,
    check_fits,
    copy_episodes,
    open_offline,
)
from worldflux.data.random_data import fill_with_noise
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sequence_draw import sequence_hint
from worldflux.data.sources import CollectionSchedule, DataSource, OnlineSource, ReplaySource
from worldflux.envs.spec import EnvironmentSpec
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import ConfigurationError

from .environments import measured_environment
from .loader import Project

_NOISE_ROWS = 10_000


def data_mode(project: Project) -> str:
    """How the manifest calls the run's data: "online", "offline" or "random"."""
    source = project.sections.data.source
    return {"gym": "online", "random": "random"}.get(source, "offline")


def has_environment(project: Project) -> bool:
    """Whether there is an environment to act in.

    Raises:
        ConfigurationError: when there is none, and the agent should collect its own data.
    """
    if project.sections.environment != NO_ENVIRONMENT:
        return True
    if project.sections.data.source in OFFLINE_SOURCES:
        return False
    raise ConfigurationError(
        f'environment = "{NO_ENVIRONMENT}" needs recorded data',
        where=project.where("environment"),
        hint=f"set data.source to one of {', '.join(OFFLINE_SOURCES)}, or name an environment",
    )


def open_project_data(project: Project) -> OfflineData | None:
    """The recorded data that [data] names, its columns checked; None for other sources.

    Raises:
        ConfigurationError: at the key, when the data is not named, not there, or does not fit.
    """
    section = project.sections.data
    source = section.source
    if source not in OFFLINE_SOURCES:
        return None
    key = "dataset" if source == MINARI else "path"
    given = section.dataset if source == MINARI else section.path
    if given is None:
        raise ConfigurationError(
            f'data.source = "{source}" needs data.{key}',
            where=project.where("data", "source"),
            hint=f'{key} = "D4RL/pen/human-v2"'
            if source == MINARI
            else f'{key} = "steps.{source}"',
        )
    location = given if source == MINARI else str(project.root / given)
    known = _known_environment(project) if has_environment(project) else None
    return open_offline(source, location, known, section.dones)


def run_spec(project: Project, offline: OfflineData | None) -> EnvironmentSpec:
    """What is observed and done: by the environment, or in the recorded data where there is none.

    Raises:
        ConfigurationError: when the environment and the recorded data differ.
    """
    if offline is not None and not has_environment(project):
        offline.require_meaning()
        return offline.spec(NO_ENVIRONMENT)
    has_environment(project)
    spec = measured_environment(project).spec
    if offline is not None:
        check_fits(offline, spec)
    return spec


def _known_environment(project: Project) -> KnownEnvironment:
    envs = measured_environment(project)
    spaces, env_id = envs.spaces, project.sections.environment
    return KnownEnvironment(env_id, spaces.observation, spaces.action, envs.spec.time_limit)


def replay_streams(project: Project) -> int:
    """Streams of the run's replay: one an environment, one for data from elsewhere."""
    online = data_mode(project) == "online"
    return project.sections.online_collection.num_envs if online else 1


def replay_capacity(project: Project, offline: OfflineData | None) -> int:
    """Rows that the replay is made for: what [data] says, or all that was recorded.

    Raises:
        ConfigurationError: when more was recorded than `data.buffer_capacity` allows.
    """
    capacity = project.sections.data.buffer_capacity
    if offline is None:
        return capacity
    if offline.num_rows > capacity:
        raise ConfigurationError(
            f"the recorded data has {offline.num_rows:,} rows, data.buffer_capacity is "
            f"{capacity:,}",
            where=project.where("data", "buffer_capacity"),
            hint=f"worldflux train --set data.buffer_capacity={offline.num_rows}",
        )
    return max(2, offline.num_rows)


def _sequence_length(project: Project, model: WorldModel) -> int:
    return project.training_config().resolve(model.config).sequence_length


def check_settings(project: Project, model: WorldModel) -> None:
    """Refuse settings that contradict one another, before a run begins.

    Raises:
        ConfigurationError: at the key.
    """
    _check_sequence(project, model)
    _check_replay(project, model)
    evaluation = project.sections.evaluation
    if evaluation.episodes == 0 and evaluation.stop_at_return is not None:
        raise ConfigurationError(
            "evaluation.stop_at_return needs evaluations; evaluation.episodes = 0 asks for none",
            where=project.where("evaluation", "stop_at_return"),
            hint="worldflux train --set evaluation.episodes=10",
        )
    native = project.sections.online_collection.vector == "native"
    if evaluation.environment == "training" and (native or data_mode(project) != "online"):
        raise ConfigurationError(
            'evaluation.environment = "training" needs an agent that collects its own data in '
            "environments that are stepped one by one",
            where=project.where("evaluation", "environment"),
            hint='set online_collection.vector = "sync"' if native else "leave it out",
        )


def _check_sequence(project: Project, model: WorldModel) -> None:
    """A sequence has to be as long as the model learns from."""
    least = model.config.training_recipe().least_rows
    length = project.training_config().resolve(model.config).sequence_length
    if length < least:
        raise ConfigurationError(
            f"training.sequence_length = {length}, and {project.sections.model} learns from "
            f"sequences of at least {least} steps",
            where=project.where("training", "sequence_length"),
            hint=f"worldflux train --set training.sequence_length={least}, or leave it out",
        )


def _check_replay(project: Project, model: WorldModel) -> None:
    """A replay has to hold one sequence."""
    capacity, streams = project.sections.data.buffer_capacity, replay_streams(project)
    length = _sequence_length(project, model)
    if capacity // streams < length:
        raise ConfigurationError(
            f"data.buffer_capacity = {capacity:,} keeps {capacity // streams} steps of each of "
            f"{streams} environments; one training sequence has {length}",
            where=project.where("data", "buffer_capacity"),
            hint=f"worldflux train --set data.buffer_capacity={length * streams}, or more",
        )


def make_replay(
    project: Project,
    model: WorldModel,
    spec: EnvironmentSpec,
    capacity: int,
    scratch: Path | None,
) -> ReplayBuffer:
    """An empty replay as [data] says; in a mapped file below `scratch` where that is given."""
    section = project.sections.data
    recency = section.sampling == "recency"
    return ReplayBuffer(
        capacity,
        spec.replay_shapes,
        spec.action_dim,
        num_envs=replay_streams(project),
        extra_columns={name: shape for name, (shape, _) in model.replay_columns().items()},
        seed=project.training_config().seed,
        half_life=section.recency_half_life if recency else None,
        scratch=scratch,
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


def make_source(
    project: Project,
    model: WorldModel,
    spec: EnvironmentSpec,
    buffer: ReplayBuffer,
    *,
    offline: OfflineData | None,
    envs: VectorEnvironment | None,
    copied: Callable[[Copied], None],
    resume: bool,
) -> DataSource:
    """Where the run's batches come from; recorded data is copied, unless a checkpoint holds it.

    Args:
        copied: told what was recorded, and what of it the replay holds.
    """
    within = not model.config.training_recipe().crosses_episodes
    seed = project.training_config().seed
    if envs is not None:
        schedule = collection_schedule(project, model)
        replays = project.sections.online_collection.env_resume == "replay"
        return OnlineSource(
            Collector(envs, buffer, seed, replays=replays),
            schedule,
            within_episode=within,
            sequence_length=_sequence_length(project, model),
        )
    if offline is None:
        fill_with_noise(buffer, spec, min(buffer.capacity, _NOISE_ROWS), seed)
    elif not resume:
        done = copy_episodes(offline, buffer)
        if within:
            note = _never_sampled(buffer, _sequence_length(project, model), offline.where)
            done = replace(done, notes=(*done.notes, *note))
        copied(done)
    return ReplaySource(buffer, within_episode=within)


def _never_sampled(buffer: ReplayBuffer, length: int, where: str) -> list[str]:
    """What to say of episodes that are shorter than one sequence.

    Raises:
        ConfigurationError: when all are.
    """
    steps = buffer.steps_written
    starts = np.flatnonzero(buffer.rows(0, steps, "is_first")["is_first"])
    rows = np.diff(starts, append=steps)
    short = int((rows < length).sum())
    if short == len(rows):
        raise ConfigurationError(
            f"no recorded episode is long enough for one sequence of {length} steps",
            where=where,
            hint=sequence_hint(int(rows.max(initial=0))),
        )
    told = f"episodes never sampled, shorter than a sequence of {length} steps: {short:,}"
    return [told] if short else []
