"""From a handle and a TrainingConfig to a submitted job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError
from worldflux.models.catalog import MODEL_CATALOG, default_config
from worldflux.models.parameter_count import count_parameters
from worldflux.training.config import TrainingConfig

from .handle import BACKENDS, OfficialBackendHandle
from .jobs import JobHandle, submit_job
from .programs import PROGRAMS, TDMPC2, Program, Request, find_installation, launch, request_of

PROGRAM_FOLDER = "official"


def submit(handle: OfficialBackendHandle, config: TrainingConfig) -> JobHandle:
    """Start the official implementation that a handle names; it outlives this process.

    Raises:
        ConfigurationError: when the checkout or its Python is missing, or something that was set
            cannot be passed on.
        RunFolderError: when `config.output_dir` already holds something.
    """
    if "backend" in config.set_fields and config.backend != handle.backend:
        raise ConfigurationError(
            f"the handle is for {handle.backend!r} and the configuration for {config.backend!r}",
            where="TrainingConfig.backend",
        )
    program = PROGRAMS[BACKENDS[handle.backend]]
    metadata = dict(handle.metadata)
    request = request_of(program, handle.model_id, metadata, config)
    main, python = find_installation(program, metadata)
    output = Path(config.output_dir).expanduser().absolute()
    start = launch(program, main, python, request, output / PROGRAM_FOLDER)
    return submit_job(
        {
            "backend": handle.backend,
            "family": program.family,
            "model": handle.model_id,
            "profile": request.profile,
            "task": request.task,
            "output_dir": str(output),
            "command": list(start.command),
            "variables": start.variables,
            "program_folder": start.folder,
            "scores": start.scores,
            "checkout": str(main.parent.parent),
            "manifest": _manifest(handle, program, request, config),
        }
    )


def _manifest(
    handle: OfficialBackendHandle, program: Program, request: Request, config: TrainingConfig
) -> dict[str, Any]:
    """What run_manifest.json says of the run before it starts."""
    model_id = handle.model_id
    assert model_id in MODEL_CATALOG
    model = default_config(model_id)
    return {
        "model": model_id,
        "parameters": count_parameters(model),
        "model_config": model.to_dict(),
        "training_config": {**config.to_dict(), "output_dir": Path(config.output_dir).name},
        "environment": {
            "id": environment_id(program, request.task),
            "time_limit": None,
            "official_task": request.task,
            "observation": "pixels" if request.is_image else "state",
            "action_repeat": action_repeat(program, request.task),
            # One step of the program's score files, in frames of the environment.
            "frames_per_env_step": 2 if program is TDMPC2 else 1,
        },
        "seeds": {"run": request.seed},
        "device": request.device,
    }


def environment_id(program: Program, task: str) -> str:
    """Our id of an official task, where there is one; else the official name."""
    if program is TDMPC2:
        return _control_suite(*task.replace("-", "_").split("_"))
    suite, *words = task.split("_")
    if suite == "dmc":
        return _control_suite(*words)
    if suite in ("atari", "atari100k"):
        return f"ALE/{''.join(word.capitalize() for word in words)}-v5"
    return task


def action_repeat(program: Program, task: str) -> int:
    """Frames of one action, as the program's own configuration has it."""
    repeated = {"atari": 4, "atari100k": 4, "dmlab": 4}  # dreamerv3/configs.yaml, env
    return 2 if program is TDMPC2 else repeated.get(task.partition("_")[0], 1)


def _control_suite(*words: str) -> str:
    words = ("ball", "in", "cup", *words[1:]) if words[0] == "cup" else words
    size = 3 if words[:3] == ("ball", "in", "cup") else 1
    return f"dm_control/{'_'.join(words[:size])}-{'_'.join(words[size:])}-v0"
