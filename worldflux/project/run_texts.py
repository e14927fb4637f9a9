"""What `worldflux train` prints before a run and after it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from worldflux.core.world_model import WorldModel
from worldflux.envs.spec import EnvironmentSpec
from worldflux.models.catalog import resolve
from worldflux.progress import duration
from worldflux.training.config import TrainingConfig
from worldflux.training.loggers import wandb_mode
from worldflux.training.machine import resolve_device

from .document import shown_path
from .loader import Project
from .provenance import environment_identity
from .run_data import collection_schedule, data_mode, has_environment

_WIDTH = 15  # of the names


def header(
    project: Project, config: TrainingConfig, spec: EnvironmentSpec, model: WorldModel
) -> str:
    """What is about to run, and how much of it."""
    sections, mode = project.sections, data_mode(project)
    environment = environment_identity(project.root, spec.env_id)["id"]
    copies, evaluation = sections.online_collection.num_envs, sections.evaluation
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    amount = f"{config.total_steps} updates"
    if mode == "online":
        schedule = collection_schedule(project, model)
        amount += f", {schedule.due(config.total_steps - 1)} environment steps"
    plays = mode != "random" and has_environment(project) and evaluation.episodes > 0
    every = f"{evaluation.episodes} episodes every {config.eval_interval} updates"
    logs = [f"wandb ({wandb_mode(sections.logging)})" if n == "wandb" else n for n in config.log_to]
    return _columns(
        {
            "environment": environment + (f", {copies} in parallel" if copies > 1 else ""),
            "data": {"offline": f"recorded ({sections.data.source})", "random": "noise"}.get(mode),
            "model": f"{resolve(sections.model)}, {parameters:,} parameters",
            "device": str(resolve_device(config.device)),
            "training": f"{amount}, seed {config.seed}",
            "evaluation": every if plays else None,
            "logging": ", ".join(logs),
            "folder": shown_path(Path(config.output_dir)),
        }
    )


def summary(manifest: Mapping[str, Any], folder: Path) -> str:
    """How a completed run ended, and what to do with it next."""
    best, last, random = (manifest[name] for name in ("best", "final", "random_return_mean"))
    place = shlex.quote(shown_path(folder))
    plays = ("eval", "verify", "imagine") if last else ("verify",)
    commands = [f"worldflux {name} --target {place}" for name in plays]
    commands.append(f"worldflux dashboard {place}")
    amount = f"{manifest['global_step']} updates, {manifest['env_steps']} environment steps"
    return _columns(
        {
            "finished": f"{amount} in {duration(manifest['wall_s'])}",
            "best return": best and f"{best['return_mean']:.1f} at update {best['step']}",
            "last return": last and f"{last['return_mean']:.1f} at update {last['step']}",
            "random policy": None if random is None else f"{random:.1f}",
            "folder": place,
            "next": f"\n{'':{_WIDTH}}".join(commands),
        }
    )


def _columns(lines: Mapping[str, str | None]) -> str:
    return "\n".join(f"{name:<{_WIDTH}}{text}" for name, text in lines.items() if text)
