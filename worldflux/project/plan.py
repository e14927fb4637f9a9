"""What a run is made of: data, environment, model; checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldflux.core.learning import learned_count, set_seed
from worldflux.core.world_model import WorldModel
from worldflux.data.demonstrations import Imitation
from worldflux.data.offline import check_fits
from worldflux.data.recorded import (
    MINARI,
    NO_ENVIRONMENT,
    OFFLINE_SOURCES,
    KnownEnvironment,
    OfflineData,
    open_offline,
)
from worldflux.data.replay_storage import SHARDS
from worldflux.data.sources import CollectionSchedule
from worldflux.envs.spec import EnvironmentSpec
from worldflux.envs.worker import Spaces
from worldflux.envs.wrappers import Preparation
from worldflux.errors import CheckpointError, ConfigurationError
from worldflux.factory import build_model
from worldflux.layout import CHECKPOINTS
from worldflux.progress import counted
from worldflux.training.checkpoints import STATE_FILE, CheckpointStore, read_state
from worldflux.training.config import TrainingConfig
from worldflux.training.device import keep_freed_memory, resolve_device
from worldflux.training.loggers import require_logger, wandb_mode

from .document import shown_path
from .environments import measured_environment
from .loader import Project
from .provenance import OWN_ENVIRONMENT, environment_name
from .resumption import Changes, Resumption, check_model
from .sections import ProjectSections
from .start import begin

DEVICE_FALLBACK = "device_fallback"
OFFLINE, OFFLINE_ONLINE = "offline", "offline_online"
_WIDTH = 15  # of the names in what is printed
Say = Callable[[str], None]


@dataclass(frozen=True)
class RunPlan:
    """The parts of a run that writing begins with.

    Attributes:
        config: with the run's own folder, and a device that this machine has.
        env_step_s: seconds that a step of one environment takes, 0 where the agent collects none.
        degraded: what could not be had as it was set.
        changed: settings that a resumed run changes, as (recorded, now).
        start: what a new run took of a saved model, and what is frozen (`start.begin`).
    """

    project: Project
    folder: Path
    config: TrainingConfig
    offline: OfflineData | None
    spec: EnvironmentSpec
    spaces: Spaces
    env_step_s: float
    model: WorldModel
    degraded: list[str]
    changed: Changes
    start: dict[str, Any] | None = None

    @property
    def sections(self) -> ProjectSections:
        return self.project.sections

    @property
    def data_mode(self) -> str:
        """How the data comes: "online", "offline", "offline_online" or "random"."""
        return data_mode(self.project)

    @property
    def schedule(self) -> CollectionSchedule | None:
        """How collecting and updates alternate, where the agent collects."""
        return collection_schedule(self.project, self.model) if collects(self.project) else None

    @property
    def evaluates(self) -> bool:
        """Whether evaluation episodes are played."""
        plays = self.data_mode != "random" and has_environment(self.project)
        return plays and self.sections.evaluation.episodes > 0

    @property
    def streams(self) -> int:
        """Streams of the replay: one an environment, one for data from elsewhere."""
        return self.sections.online_collection.num_envs if collects(self.project) else 1

    @property
    def sequence_length(self) -> int:
        return self.config.resolve(self.model.config).sequence_length

    @property
    def capacity(self) -> int:
        """Rows that the replay is made for: what [data] says, or all that was recorded."""
        return self.sections.data.buffer_capacity if collects(self.project) else self.recorded_rows

    @property
    def recorded_rows(self) -> int:
        """Rows of a replay of all that was recorded."""
        if self.offline is None:
            return self.sections.data.buffer_capacity
        return max(2, self.offline.num_rows)

    @property
    def imitation(self) -> Imitation:
        """How the policy imitates recorded actions."""
        data, first = self.sections.data, self.sections.online_collection.after_offline_updates
        return Imitation(data.imitation_weight, data.imitation_decay_updates, first or 0)


def plan_run(start: Resumption, folder: Path, strict: bool, say: Say) -> RunPlan:
    """Check all that can be refused; writes nothing."""
    project = start.project
    config, degraded = _with_usable_device(project, strict, say)
    for name in config.log_to:
        require_logger(name)
    keep_freed_memory()
    set_seed(config.seed)
    offline = open_project_data(project)
    spec, spaces, env_step_s = run_spec(project, offline)
    wanted = project.model_config(**spec.model_fields()).for_agent(spec.time_limit)
    model = build_model(check_model(start, wanted, spec, folder))
    begun = begin(project, model, say) if start.model_config is None else None
    config = config.with_overrides(output_dir=str(folder))
    parts = project, folder, config, offline, spec, spaces, env_step_s, model
    plan = RunPlan(*parts, degraded, start.changed, begun)
    _check_lengths(plan)
    _check_recorded(plan)
    _check_evaluation(plan)
    return plan


def _check_lengths(plan: RunPlan) -> None:
    """The model must be able to learn from a sequence, and the replay to hold the data."""
    least, length = plan.model.config.training_recipe().least_rows, plan.sequence_length
    if length < least:
        raise _error(
            plan.project,
            f"training.sequence_length = {length}, and {plan.sections.model} learns from "
            f"sequences of at least {least} steps",
            "training.sequence_length",
            f"worldflux train --set training.sequence_length={least}, or leave it out",
        )
    capacity = plan.sections.data.buffer_capacity
    if capacity // plan.streams < length:
        raise _error(
            plan.project,
            f"data.buffer_capacity = {capacity:,} keeps {capacity // plan.streams} steps of each "
            f"of {plan.streams} environments; one training sequence has {length}",
            "data.buffer_capacity",
            f"worldflux train --set data.buffer_capacity={length * plan.streams}, or more",
        )
    if plan.offline is not None and plan.offline.num_rows > capacity:
        rows = plan.offline.num_rows
        raise _error(
            plan.project,
            f"the recorded data has {rows:,} rows, data.buffer_capacity is {capacity:,}",
            "data.buffer_capacity",
            f"worldflux train --set data.buffer_capacity={rows}",
        )


def _check_recorded(plan: RunPlan) -> None:
    """Settings of recorded data need some, and imitation a family that can."""
    if plan.offline is not None:
        if plan.sections.data.imitation_weight and not plan.model.imitates:
            raise _error(
                plan.project,
                f"{plan.sections.model} does not imitate recorded actions",
                "data.imitation_weight",
                "leave it out",
            )
        return
    for key in ("online_collection.after_offline_updates", "data.imitation_weight"):
        section, _, name = key.partition(".")
        if getattr(getattr(plan.sections, section), name):
            raise _error(
                plan.project,
                f"{key} needs recorded data",
                key,
                f"set data.source to one of {', '.join(OFFLINE_SOURCES)}, or leave it out",
            )


def _check_evaluation(plan: RunPlan) -> None:
    evaluation = plan.sections.evaluation
    if evaluation.episodes == 0 and evaluation.stop_at_return is not None:
        raise _error(
            plan.project,
            "evaluation.stop_at_return needs evaluations; evaluation.episodes = 0 asks for none",
            "evaluation.stop_at_return",
            "worldflux train --set evaluation.episodes=10",
        )
    native = plan.sections.online_collection.vector == "native"
    own = environment_name(plan.project.root, plan.spec.env_id) == OWN_ENVIRONMENT
    if native and own and plan.schedule is not None:
        raise _error(
            plan.project,
            'online_collection.vector = "native" takes an environment by its id, and dataset.py '
            "makes its own",
            "online_collection.vector",
            'set online_collection.vector = "sync" or "async"',
        )
    if evaluation.environment == "training" and (native or plan.schedule is None):
        raise _error(
            plan.project,
            'evaluation.environment = "training" needs an agent that collects its own data in '
            "environments that are stepped one by one",
            "evaluation.environment",
            'set online_collection.vector = "sync"' if native else "leave it out",
        )


def _with_usable_device(
    project: Project, strict: bool, say: Say
) -> tuple[TrainingConfig, list[str]]:
    """The configuration with a device that this machine has, and what that degrades."""
    config = project.training_config()
    try:
        resolve_device(config.device)
    except ConfigurationError as error:
        if strict:
            error.where = project.where("training", "device")
            raise
        say(f"warning: {error.message}; continuing on the CPU (degraded: {DEVICE_FALLBACK})")
        return config.with_overrides(device="cpu"), [DEVICE_FALLBACK]
    return config, []


def data_mode(project: Project) -> str:
    """How the manifest calls the run's data: "online", "offline", "offline_online" or "random"."""
    source = project.sections.data.source
    after = project.sections.online_collection.after_offline_updates
    recorded = OFFLINE if after is None else OFFLINE_ONLINE
    return {"gym": "online", "random": "random"}.get(source, recorded)


def collects(project: Project) -> bool:
    """Whether the agent acts to collect its own data."""
    return data_mode(project) in ("online", OFFLINE_ONLINE)


def _error(project: Project, message: str, key: str, hint: str) -> ConfigurationError:
    """A mistake at a key of worldflux.toml."""
    return ConfigurationError(message, where=project.where(*key.split(".")), hint=hint)


def has_environment(project: Project) -> bool:
    """Whether there is an environment to act in; recorded data alone can do without one."""
    if project.sections.environment != NO_ENVIRONMENT:
        return True
    if data_mode(project) == OFFLINE:
        return False
    if data_mode(project) == OFFLINE_ONLINE:
        raise _error(
            project,
            f'environment = "{NO_ENVIRONMENT}": the agent has nothing to collect in',
            "online_collection.after_offline_updates",
            "leave it out, or set environment to the one that the data was recorded in",
        )
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
    location = given if of_minari else str(project.root / os.path.expanduser(given))
    size: Any = project.sections.environment_kwargs.get("image_size")
    return open_offline(source, location, known, section.dones, Preparation(False, size).image_size)


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


def collection_schedule(project: Project, model: WorldModel) -> CollectionSchedule:
    """How experience and updates alternate: as set, else as the model's family does."""
    online, recipe = project.sections.online_collection, model.config.training_recipe()
    warmup, after = online.warmup_transitions, online.after_offline_updates
    if warmup is None:  # an agent that has learned from recorded data collects better
        warmup = recipe.warmup_transitions if after is None else 0
    pretrain = recipe.pretrain if online.pretrain is None else online.pretrain
    ratio = project.training_config().resolve(model.config).update_ratio
    per_update = online.collect_steps_per_update
    return CollectionSchedule(
        warmup_transitions=warmup,
        pretrain_updates=(warmup if pretrain else 0) + (after or 0),
        steps_per_update=1 / ratio if per_update is None else per_update,
    )


def header(plan: RunPlan, reached: int = 0) -> str:
    """What is about to run, and how much of it; `reached` is the update that a run resumes at."""
    sections, config = plan.sections, plan.config
    environment = environment_name(plan.project.root, plan.spec.env_id)
    copies, episodes = sections.online_collection.num_envs, sections.evaluation.episodes
    amount = counted(config.total_steps, "update")
    if (schedule := _continued_schedule(plan, reached)) is not None:
        amount += f", {counted(schedule.due(config.total_steps - 1), 'environment step')}"
    every = f"{counted(episodes, 'episode')} every {counted(config.eval_interval, 'update')}"
    logs = [f"wandb ({wandb_mode(sections.logging)})" if n == "wandb" else n for n in config.log_to]
    recorded = f"recorded ({sections.data.source})"
    after = sections.online_collection.after_offline_updates
    source = {
        OFFLINE: recorded,
        OFFLINE_ONLINE: f"{recorded}, after {counted(after or 0, 'update')} collected too",
        "random": "noise",
    }
    return columns(
        {
            "environment": environment + (f", {copies} in parallel" if copies > 1 else ""),
            "data": source.get(plan.data_mode),
            "model": f"{plan.project.model_name}, {learned_count(plan.model):,} parameters",
            "actions": "masked by the observation action_mask" if plan.spec.mask_parts else None,
            "device": str(resolve_device(config.device)),
            "training": f"{amount}, seed {config.seed}",
            "evaluation": every if plan.evaluates else None,
            "logging": ", ".join(logs),
            "folder": shown_path(Path(config.output_dir)),
        }
    )


def _continued_schedule(plan: RunPlan, reached: int) -> CollectionSchedule | None:
    """The run's schedule; another one than before counts from the update that was reached."""
    schedule = plan.schedule
    if schedule is None or not reached:
        return schedule
    path = CheckpointStore(plan.folder / CHECKPOINTS).path(reached) / STATE_FILE
    try:
        state = read_state(path)
        if SHARDS in state["data"]:
            return schedule
        saved, taken = state["data"].get("schedule"), int(state["env_steps"])
        return schedule.continued(saved, reached, taken, plan.streams)
    except (CheckpointError, AttributeError, KeyError, TypeError, ValueError):
        return schedule  # of a damaged checkpoint, which the trainer reports and passes over


def columns(lines: Mapping[str, str | None]) -> str:
    """Names and texts in two columns; lines of a text go below one another."""
    shown = {name: text.replace("\n", f"\n{'':{_WIDTH}}") for name, text in lines.items() if text}
    return "\n".join(f"{name:<{_WIDTH}}{text}" for name, text in shown.items())
