"""From a handle and a TrainingConfig to a submitted job."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.models.catalog import default_config, preset_name
from worldflux.training.config import TrainingConfig

from .jobs import JobHandle, submit_job
from .program import DEBUG, PASSED_ON, OfficialBackendHandle, Program, Request, program_of

PROGRAM_FOLDER = "official"
# How a run degrades whose networks are toys, whatever the model's name says.
DEBUG_PROFILE = "debug_profile"


def submit(handle: OfficialBackendHandle, config: TrainingConfig) -> JobHandle:
    """Start the official implementation that a handle names; it outlives this process."""
    if "backend" in config.set_fields and config.backend != handle.backend:
        raise ConfigurationError(
            f"the handle is for {handle.backend!r} and the configuration for {config.backend!r}",
            where="TrainingConfig.backend",
        )
    program = program_of(handle.backend)
    metadata = dict(handle.metadata)
    request = _request(program, handle.model_id, metadata, config)
    main, python = _installation(program, metadata)
    output = Path(config.output_dir).expanduser().absolute()
    folder = output / PROGRAM_FOLDER
    device, _, index = request.device.partition(":")
    arguments, scores = program.command(request, device, folder)
    return submit_job(
        {
            "backend": handle.backend,
            "model": handle.model_id,
            "profile": request.profile,
            "task": request.task,
            "output_dir": str(output),
            "command": [str(python), str(main), *arguments, *request.arguments],
            "variables": {
                "PYTHONUNBUFFERED": "1",
                **({"CUDA_VISIBLE_DEVICES": index} if index else {}),
            },
            "program_folder": str(folder),
            "scores": str(scores),
            "checkout": str(main.parent.parent),
            "manifest": _manifest(handle.model_id, program, request, config),
        }
    )


def _request(
    program: Program, model_id: str, metadata: dict[str, Any], config: TrainingConfig
) -> Request:
    """What a handle and a TrainingConfig ask for together."""
    chosen = config.set_fields
    if chosen - PASSED_ON:
        raise ConfigurationError(
            f"a delegated run does not read {', '.join(sorted(chosen - PASSED_ON))}",
            where="TrainingConfig",
            hint="give the program's own flags: create_world_model(..., arguments=[...])",
        )
    profile = config.backend_profile or preset_name(model_id)
    if profile not in program.profiles:
        raise ConfigurationError(
            f"the {program.title} has no profile {profile!r}: {', '.join(program.profiles)}",
            where="backend_profile",
            hint=did_you_mean(profile, program.profiles),
        )
    device = str(metadata.get("device", "auto"))
    device = "auto" if device == "cpu" else device  # create_world_model's default, not a wish
    shape = metadata.get("obs_shape")
    request = Request(
        profile=profile,
        task=str(metadata.get("task") or program.default_task),
        seed=config.seed,
        device=config.device if "device" in chosen else device,
        is_image=len(shape) == 3 if shape else program.observes_images,
        batch_size=config.batch_size if "batch_size" in chosen else None,
        learning_rate=config.learning_rate if "learning_rate" in chosen else None,
        arguments=tuple(str(argument) for argument in metadata.get("arguments", ())),
    )
    return replace(
        request, steps=_steps(program, metadata.get("environment_steps"), request, config)
    )


def _steps(program: Program, given: Any, request: Request, config: TrainingConfig) -> int | None:
    if given is not None:
        if not isinstance(given, int) or isinstance(given, bool) or given < 1:
            raise ConfigurationError(
                f"environment_steps = {given!r} is not allowed: a whole number, at least 1"
            )
        return given
    if "total_steps" not in config.set_fields:
        return program.debug_steps if request.profile == DEBUG else None
    return program.steps_of(request, config.total_steps)


def _installation(program: Program, metadata: dict[str, Any]) -> tuple[Path, Path]:
    """The main file of the checkout and the Python to run it, from configuration or environment."""
    checkout_variable = f"WORLDFLUX_{program.prefix}_CHECKOUT"
    checkout = _named(program, "checkout", program.source, checkout_variable, metadata)
    main = checkout / program.main
    if not main.is_file():
        raise ConfigurationError(
            f"this is no checkout of the {program.title}: it has no {program.main}",
            where=str(checkout),
            hint=f"git clone {program.source} DIR; export {checkout_variable}=DIR",
        )
    python_variable = f"WORLDFLUX_{program.prefix}_PYTHON"
    python = _named(
        program, "python", "the environment with its packages", python_variable, metadata
    )
    if not os.access(python, os.X_OK) or python.is_dir():
        raise ConfigurationError(
            f"the Python of the {program.title} is not a program that can be run",
            where=str(python),
            hint=f"export {python_variable}=/path/to/its/venv/bin/python",
        )
    return main, python


def _named(
    program: Program, what: str, source: str, variable: str, metadata: dict[str, Any]
) -> Path:
    given = metadata.get(what) or os.environ.get(variable)
    if not given:
        raise ConfigurationError(
            f"the {program.title} needs its {what} ({source}), and none was named",
            hint=f"export {variable}=PATH, or create_world_model(..., {what}=PATH)",
        )
    return Path(str(given)).expanduser().absolute()


def _manifest(
    model_id: str, program: Program, request: Request, config: TrainingConfig
) -> dict[str, Any]:
    """What run_manifest.json says of the run before it starts."""
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
