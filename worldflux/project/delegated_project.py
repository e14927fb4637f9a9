"""A project whose `training.backend` names an official program: submitted as a job, and followed.

The program is told the task that worldflux.toml means, and of [training] what it has a word for.
The rest of the file says how OUR program acts; what of it was set is named, once.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from worldflux.backends.handle import OfficialBackendHandle, open_handle
from worldflux.backends.jobs import JobHandle, JobStatus
from worldflux.backends.program import TOLD, official_task, program_of
from worldflux.backends.scores import plain
from worldflux.backends.submission import submit
from worldflux.errors import ConfigurationError, TrainingError
from worldflux.models.catalog import family_of_model, resolve
from worldflux.training.config import TrainingConfig

from .interruption import graceful_stop
from .loader import Project
from .manifest import read_manifest

_SECTIONS = ("data", "online_collection", "evaluation", "gameplay", "visualization")


def follow(
    project: Project, *, resume: bool, strict: bool, say: Callable[[str], None]
) -> tuple[Path, tuple[int, int], int]:
    """Submit the project's job and print its log until it ends.

    A signal ends the following, not the job.

    Returns:
        The run's folder, its updates and environment steps, and the command's exit code.

    Raises:
        ConfigurationError: for what the official program cannot be told, or, where nothing may
            degrade (`strict`), is not told.
        TrainingError: when the job failed or was cancelled.
    """
    if resume:
        raise ConfigurationError(
            "a delegated run cannot be resumed",
            where=project.where("training", "backend"),
            hint="choose a new folder: --output-dir DIR",
        )
    handle, config, untold = _asked(project)
    if untold:
        words = f"the official program is not told {', '.join(untold)}"
        if strict:
            raise ConfigurationError(words, where=str(project.path), hint="remove them")
        say(f"warning: {words}")
    job = submit(handle, config)
    say(f"job {job.id}: {handle.backend} runs {handle.model_id}; it goes on without this command")
    code = _print_log(job, say)
    if not code and job.status is not JobStatus.COMPLETED:
        raise TrainingError(f"the job {job.status}: {job.reason}", where=str(job.output_dir))
    manifest = read_manifest(job.output_dir)
    return job.output_dir, (manifest["global_step"], manifest["env_steps"]), code


def _print_log(job: JobHandle, say: Callable[[str], None]) -> int:
    """Print lines until the job ends (0) or a signal says to stop (its exit code)."""
    stopped: list[bool] = []
    with graceful_stop(lambda: stopped.append(True)) as stop:
        for line in job.logs(follow=True, stop=lambda: bool(stopped)):
            say(line if sys.stderr.isatty() else plain(line))
    if not stopped:
        return 0
    say(f"the job goes on: worldflux jobs logs {job.id} --follow")
    say(f"end it with: worldflux jobs cancel {job.id}")
    return stop.exit_code


def _asked(project: Project) -> tuple[OfficialBackendHandle, TrainingConfig, list[str]]:
    """The handle, what its program is told of [training], and what it is not told."""
    sections, config = project.sections, project.training_config()
    model_id = resolve(sections.model)
    arguments = sections.environment_kwargs
    try:
        family = family_of_model(model_id).name
        handle = open_handle(config.backend, model_id, family, {"device": "auto"})
    except ConfigurationError as error:
        where = project.where("training", "backend")
        raise ConfigurationError(error.message, where=where, hint=error.hint) from None
    program = program_of(config.backend)
    try:
        task = official_task(program, sections.environment, arguments)
    except ConfigurationError as error:
        where = project.where("environment")
        raise ConfigurationError(error.message, where=where, hint=error.hint) from None
    if sections.architecture:
        raise ConfigurationError(
            f"the {program.title} has sizes of its own and takes no [architecture]",
            where=project.where("architecture"),
            hint="remove it; training.backend_profile chooses a size",
        )
    is_image = bool(arguments.get("pixels")) or sections.environment.startswith("ALE/")
    metadata = {**handle.metadata, "task": task, "obs_shape": (3, 64, 64) if is_image else (1,)}
    told = {name: getattr(config, name) for name in config.set_fields & TOLD}
    told["output_dir"] = str(project.root / config.output_dir)
    untold = [f"training.{name}" for name in sorted(config.set_fields - TOLD)]
    untold += [f"[{name}]" for name in _SECTIONS if project.is_set(name)]
    return OfficialBackendHandle(handle.backend, model_id, metadata), TrainingConfig(**told), untold
