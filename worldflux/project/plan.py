"""What a run is made of: data, environment, model; checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worldflux.core.learning import learned_count, set_seed
from worldflux.core.world_model import WorldModel
from worldflux.data.demonstrations import Imitation
from worldflux.data.recorded import OFFLINE_SOURCES, OfflineData
from worldflux.data.replay_storage import SHARDS
from worldflux.data.sources import CollectionSchedule
from worldflux.envs.spec import EnvironmentSpec
from worldflux.envs.worker import Spaces
from worldflux.errors import CheckpointError, ConfigurationError
from worldflux.factory import build_model
from worldflux.layout import CHECKPOINTS
from worldflux.progress import counted
from worldflux.training.checkpoints import STATE_FILE, CheckpointStore, read_state
from worldflux.training.config import TrainingConfig
from worldflux.training.device import keep_freed_memory, resolve_device
from worldflux.training.experience import STOP, WARN
from worldflux.training.loggers import require_logger, wandb_mode

from .document import shown_path
from .environments import measured_environment
from .loader import Project
from .plan_data import (
    OFFLINE,
    OFFLINE_ONLINE,
    collects,
    data_mode,
    has_environment,
    open_project_data,
    open_task_data,
    run_spec,
    setting_error,
)
from .provenance import OWN_ENVIRONMENT, environment_name
from .resources import require_room
from .resumption import Changes, Resumption, check_model
from .sections import ProjectSections
from .start import begin
from .tasks import TaskSet

DEVICE_FALLBACK = "device_fallback"
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
        task_rows: rows that the replay holds of each of several tasks, in proportion.
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
    tasks: TaskSet | None = None
    task_rows: tuple[int, ...] = ()

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
        each = len(self.tasks.tasks) if self.tasks else 1
        return self.sections.online_collection.num_envs * each if collects(self.project) else 1

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
    def on_unfit_data(self) -> str:
        """What experience does that the model cannot learn from; noise never stops a run."""
        return self.config.on_unfit_data or (WARN if self.data_mode == "random" else STOP)

    @property
    def imitation(self) -> Imitation:
        """How the policy imitates recorded actions."""
        data, first = self.sections.data, self.sections.online_collection.after_offline_updates
        return Imitation(data.imitation_weight, data.imitation_decay_updates, first or 0)


def plan_run(start: Resumption, folder: Path, strict: bool, say: Say) -> RunPlan:
    """Check all that can be refused; writes nothing."""
    project = start.project
    _check_read(project)
    config, degraded = _with_usable_device(project, strict, say)
    for name in config.log_to:
        require_logger(name)
    keep_freed_memory()
    set_seed(config.seed)
    parts: list[OfflineData] = []
    measured = None
    if project.sections.tasks:
        measured = measured_environment(project, timed=collects(project))
        parts, offline = open_task_data(project, measured)
        spec, spaces, env_step_s = measured.spec, measured.spaces, measured.step_s
    else:
        offline = open_project_data(project)
        spec, spaces, env_step_s = run_spec(project, offline)
    wanted = project.model_config(**spec.model_fields()).for_agent(spec.time_limit)
    tasks = None if measured is None else measured.tasks
    if tasks is not None:
        wanted = wanted.for_tasks(tasks.action_dims, tasks.time_limits)
    chosen = check_model(start, wanted, spec, folder)
    require_room(chosen, project.where("architecture"))
    model = build_model(chosen)
    begun = begin(project, model, say) if start.model_config is None else None
    config = config.with_overrides(output_dir=str(folder))
    task_rows = tuple(part.num_rows for part in parts) or (1,) * len(project.sections.tasks)
    given = project, folder, config, offline, spec, spaces, env_step_s, model
    plan = RunPlan(*given, degraded, start.changed, begun, tasks, task_rows)
    _check_lengths(plan)
    _check_recorded(plan)
    _check_evaluation(plan)
    return plan


def _check_read(project: Project) -> None:
    """Refuse settings of [training] that only `train()` and delegated programs read."""
    for name, instead in (
        ("model_overrides", "write these keys in [architecture]"),
        ("backend_profile", "delete it, or name an official program in training.backend"),
    ):
        if getattr(project.training_config(), name):
            message = f"training.{name} is not read by a run of this model"
            raise setting_error(project, message, f"training.{name}", instead)


def _check_lengths(plan: RunPlan) -> None:
    """The model must be able to learn from a sequence, and the replay to hold the data."""
    least, length = plan.model.config.training_recipe().least_rows, plan.sequence_length
    if length < least:
        raise setting_error(
            plan.project,
            f"training.sequence_length = {length}, and {plan.sections.model} learns from "
            f"sequences of at least {least} steps",
            "training.sequence_length",
            f"worldflux train --set training.sequence_length={least}, or leave it out",
        )
    capacity = plan.sections.data.buffer_capacity
    if capacity // plan.streams < length:
        raise setting_error(
            plan.project,
            f"data.buffer_capacity = {capacity:,} keeps {capacity // plan.streams} steps of each "
            f"of {plan.streams} environments; one training sequence has {length}",
            "data.buffer_capacity",
            f"worldflux train --set data.buffer_capacity={length * plan.streams}, or more",
        )
    if plan.offline is not None and plan.offline.num_rows > capacity:
        rows = plan.offline.num_rows
        raise setting_error(
            plan.project,
            f"the recorded data has {rows:,} rows, data.buffer_capacity is {capacity:,}",
            "data.buffer_capacity",
            f"worldflux train --set data.buffer_capacity={rows}",
        )


def _check_recorded(plan: RunPlan) -> None:
    """Settings of recorded data need some, and imitation a family that can."""
    if plan.offline is not None:
        if plan.sections.data.imitation_weight and not plan.model.imitates:
            raise setting_error(
                plan.project,
                f"{plan.sections.model} does not imitate recorded actions",
                "data.imitation_weight",
                "leave it out",
            )
        _check_offline_updates(plan)
        return
    for key in ("online_collection.after_offline_updates", "data.imitation_weight"):
        section, _, name = key.partition(".")
        if getattr(getattr(plan.sections, section), name):
            raise setting_error(
                plan.project,
                f"{key} needs recorded data",
                key,
                f"set data.source to one of {', '.join(OFFLINE_SOURCES)}, or leave it out",
            )


def _check_offline_updates(plan: RunPlan) -> None:
    """An agent that is to collect must begin to, before the run ends."""
    after, total = plan.sections.online_collection.after_offline_updates, plan.config.total_steps
    if after is not None and after >= total:
        raise setting_error(
            plan.project,
            f"online_collection.after_offline_updates = {after:,}, and the run ends after "
            f"training.total_steps = {total:,}: the agent would never collect",
            "online_collection.after_offline_updates",
            f"worldflux train --set training.total_steps={2 * max(after, 1)}, or leave "
            "after_offline_updates out to learn from the recorded data alone",
        )


def _check_evaluation(plan: RunPlan) -> None:
    evaluation = plan.sections.evaluation
    if evaluation.episodes == 0 and evaluation.stop_at_return is not None:
        raise setting_error(
            plan.project,
            "evaluation.stop_at_return needs evaluations; evaluation.episodes = 0 asks for none",
            "evaluation.stop_at_return",
            "worldflux train --set evaluation.episodes=10",
        )
    if evaluation.policy not in (None, *plan.model.policies()):
        raise setting_error(
            plan.project,
            f"{plan.sections.model} has no policy {evaluation.policy!r}; it has "
            f"{', '.join(plan.model.policies())}",
            "evaluation.policy",
            "leave it out",
        )
    native = plan.sections.online_collection.vector == "native"
    if plan.tasks is not None and plan.sections.distributed.shards > 1:
        raise setting_error(
            plan.project,
            "several shards do not share [[tasks]] yet",
            "distributed.shards",
            "leave it out",
        )
    if native and plan.tasks is not None:
        raise setting_error(
            plan.project,
            'online_collection.vector = "native" has copies of one environment, and [[tasks]] '
            "names several",
            "online_collection.vector",
            'set online_collection.vector = "sync" or "async"',
        )
    own = environment_name(plan.project.root, plan.spec.env_id) == OWN_ENVIRONMENT
    if native and own and plan.schedule is not None:
        raise setting_error(
            plan.project,
            'online_collection.vector = "native" takes an environment by its id, and dataset.py '
            "makes its own",
            "online_collection.vector",
            'set online_collection.vector = "sync" or "async"',
        )
    if evaluation.environment == "training" and (native or plan.schedule is None):
        raise setting_error(
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
    device = resolve_device(config.device)
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    if threads and (config.threads or 0) > torch.get_num_threads():
        threads += f" (training.threads = {config.threads}, and there are not so many cores)"
    after = sections.online_collection.after_offline_updates
    source = {
        OFFLINE: recorded,
        OFFLINE_ONLINE: f"{recorded}, after {counted(after or 0, 'update')} collected too",
        "random": "noise",
    }
    return columns(
        {
            "environment": environment + (f", {copies} in parallel" if copies > 1 else ""),
            "tasks": ", ".join(plan.tasks.names) if plan.tasks else None,
            "data": source.get(plan.data_mode),
            "model": f"{plan.project.model_name}, {learned_count(plan.model):,} parameters",
            "actions": "masked by the observation action_mask" if plan.spec.mask_parts else None,
            "device": f"{device}{threads}",
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
