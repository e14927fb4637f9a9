"""What a run is made of, decided and checked before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from worldflux.core.learning import set_seed
from worldflux.core.world_model import WorldModel
from worldflux.data.recorded import OfflineData
from worldflux.data.sources import CollectionSchedule
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import ConfigurationError
from worldflux.factory import build_model
from worldflux.models.catalog import resolve
from worldflux.training.config import TrainingConfig
from worldflux.training.loggers import require_logger, wandb_mode
from worldflux.training.machine import keep_freed_memory, resolve_device

from .document import shown_path
from .loader import Project
from .provenance import environment_identity
from .resumption import Changes, Resumption, check_model
from .run_data import (
    check_settings,
    collection_schedule,
    data_mode,
    has_environment,
    open_project_data,
    run_spec,
)
from .sections import ProjectSections

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
    """

    project: Project
    folder: Path
    config: TrainingConfig
    offline: OfflineData | None
    spec: EnvironmentSpec
    env_step_s: float
    model: WorldModel
    degraded: list[str]
    changed: Changes

    @property
    def sections(self) -> ProjectSections:
        """What worldflux.toml says."""
        return self.project.sections

    @property
    def data_mode(self) -> str:
        """How the data comes: "online", "offline" or "random"."""
        return data_mode(self.project)

    @property
    def schedule(self) -> CollectionSchedule | None:
        """How collecting and updates alternate, where the agent collects."""
        return collection_schedule(self.project, self.model) if self.data_mode == "online" else None

    @property
    def evaluates(self) -> bool:
        """Whether evaluation episodes are played."""
        plays = self.data_mode != "random" and has_environment(self.project)
        return plays and self.sections.evaluation.episodes > 0


def plan_run(start: Resumption, folder: Path, strict: bool, say: Say) -> RunPlan:
    """Check all that can be refused; writes nothing."""
    project = start.project
    config, degraded = _with_usable_device(project, strict, say)
    for name in config.log_to:
        require_logger(name)
    keep_freed_memory()
    set_seed(config.seed)
    offline = open_project_data(project)
    spec, env_step_s = run_spec(project, offline)
    wanted = project.model_config(**spec.model_fields()).for_agent(spec.time_limit)
    model = build_model(check_model(start, wanted, spec, folder))
    check_settings(project, model)
    config = config.with_overrides(output_dir=str(folder))
    return RunPlan(
        project, folder, config, offline, spec, env_step_s, model, degraded, start.changed
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


def header(plan: RunPlan) -> str:
    """What is about to run, and how much of it."""
    sections, config = plan.sections, plan.config
    environment = environment_identity(plan.project.root, plan.spec.env_id)["id"]
    copies, episodes = sections.online_collection.num_envs, sections.evaluation.episodes
    parameters = sum(p.numel() for p in plan.model.parameters() if p.requires_grad)
    amount = f"{config.total_steps} updates"
    if plan.schedule is not None:
        amount += f", {plan.schedule.due(config.total_steps - 1)} environment steps"
    every = f"{episodes} episodes every {config.eval_interval} updates"
    logs = [f"wandb ({wandb_mode(sections.logging)})" if n == "wandb" else n for n in config.log_to]
    source = {"offline": f"recorded ({sections.data.source})", "random": "noise"}
    return columns(
        {
            "environment": environment + (f", {copies} in parallel" if copies > 1 else ""),
            "data": source.get(plan.data_mode),
            "model": f"{resolve(sections.model)}, {parameters:,} parameters",
            "device": str(resolve_device(config.device)),
            "training": f"{amount}, seed {config.seed}",
            "evaluation": every if plan.evaluates else None,
            "logging": ", ".join(logs),
            "folder": shown_path(Path(config.output_dir)),
        }
    )


def columns(lines: Mapping[str, str | None]) -> str:
    """Names and texts in two columns; lines of a text go below one another."""
    shown = {name: text.replace("\n", f"\n{'':{_WIDTH}}") for name, text in lines.items() if text}
    return "\n".join(f"{name:<{_WIDTH}}{text}" for name, text in shown.items())
