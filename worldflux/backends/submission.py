"""From a handle and a TrainingConfig to a submitted job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError
from worldflux.models.catalog import default_config
from worldflux.training.config import TrainingConfig

from .handle import OfficialBackendHandle
from .jobs import JobHandle, submit_job
from .program import (
    DEBUG,
    Program,
    Request,
    find_installation,
    launch,
    program_of,
    request_of,
)

PROGRAM_FOLDER = "official"
# How a run degrades whose networks are toys, whatever the model's name says.
DEBUG_PROFILE = "debug_profile"


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
    program = program_of(handle.backend)
    metadata = dict(handle.metadata)
    request = request_of(program, handle.model_id, metadata, config)
    main, python = find_installation(program, metadata)
    output = Path(config.output_dir).expanduser().absolute()
    start = launch(program, main, python, request, output / PROGRAM_FOLDER)
    return submit_job(
        {
            "backend": handle.backend,
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
    preset = f"{program.preset_prefix}:{request.profile}"
    model = default_config(model_id if request.profile == DEBUG else preset)
    training = {**config.to_dict(), "output_dir": Path(config.output_dir).name}
    return {
        "model": model_id,
        "parameters": None,  # the program says, when it has built its networks
        "degraded_modes": [DEBUG_PROFILE] if request.profile == DEBUG else [],
        "model_config": {k: v for k, v in model.to_dict().items() if k != "set_fields"},
        "training_config": {k: v for k, v in training.items() if k != "set_fields"},
        "environment": {
            "id": program.environment_id(request.task),
            "kwargs": program.environment_arguments(request.task),
            "time_limit": None,
            "official_task": request.task,
            "observation": "pixels" if request.is_image else "state",
            "action_repeat": program.action_repeat(request.task),
            # One step of the program's score files, in frames of the environment.
            "frames_per_env_step": program.frames_per_step,
        },
        "seeds": {"run": request.seed},
        "device": request.device,
    }
