"""An official program: what a job asks of it, and the command that asks it.

What only one program knows (its flags, tasks and files) is in the folder of its family.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.models.registry import attribute, our_families
from worldflux.training.config import TrainingConfig

from .handle import BACKENDS
from .scores import ScoreReader

DEBUG = "debug"
CONTROL, ATARI = "dm_control/", "ALE/"  # namespaces of our environments
# Fields of TrainingConfig that an official program is told, or that choose it.
_TOLD_VALUES = ("total_steps", "batch_size", "learning_rate", "seed", "device", "output_dir")
TOLD = frozenset((*_TOLD_VALUES, "backend", "backend_profile"))


@dataclass(frozen=True)
class Request:
    """What a job asks of an official program. None: the program's own default.

    `steps` counts as the program's own flag does: agent steps.
    """

    profile: str
    task: str
    seed: int
    device: str
    is_image: bool
    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    arguments: tuple[str, ...] = ()


class Program(ABC):
    """An official program: where its checkout and Python are named, and its main file.

    Attributes:
        profiles: the sizes that it has by itself, and a quick one for checks ("debug").
        debug_steps: how long a debug run is that is not told, so that it ends by itself.
        observes_images: what it is given where nobody says.
        preset_prefix: of the catalogue ids of its profiles.
        frames_per_step: of one step of its score files.
    """

    family: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    main: ClassVar[str]
    prefix: ClassVar[str]
    default_task: ClassVar[str]
    profiles: ClassVar[tuple[str, ...]]
    debug_steps: ClassVar[int]
    observes_images: ClassVar[bool]
    preset_prefix: ClassVar[str]
    frames_per_step: ClassVar[int]

    @property
    def checkout_variable(self) -> str:
        """Environment variable of the checkout's folder."""
        return f"WORLDFLUX_{self.prefix}_CHECKOUT"

    @property
    def python_variable(self) -> str:
        """Environment variable of the Python that has the program's packages."""
        return f"WORLDFLUX_{self.prefix}_PYTHON"

    @abstractmethod
    def steps_of(self, request: Request, updates: int) -> int:
        """Agent steps after which it has made that many gradient updates.

        Raises:
            ConfigurationError: when the user's own flags change what that follows from.
        """

    @abstractmethod
    def command(self, request: Request, device: str, folder: Path) -> tuple[list[str], Path]:
        """Its arguments, with every file below `folder`, and where its scores will be.

        Raises:
            ConfigurationError: for a device that it does not run on.
        """

    @abstractmethod
    def scores(self, path: Path, log: Path, command: Sequence[str]) -> ScoreReader:
        """The reader of what a run of it writes."""

    @abstractmethod
    def environment_id(self, task: str) -> str:
        """Our id of one of its tasks, where there is one; else its own name."""

    def environment_arguments(self, task: str) -> dict[str, Any]:
        """What our environment has to be given to be the official one."""
        return {}

    @abstractmethod
    def action_repeat(self, task: str) -> int:
        """Frames of one action, as its own configuration has it."""

    @abstractmethod
    def task_of(self, env_id: str, arguments: Mapping[str, Any]) -> str | None:
        """Its own name of one of our environments; None where it has no such task."""


@dataclass(frozen=True)
class Launch:
    """A command, the variables beside the caller's own, and the folder of the program's files."""

    command: tuple[str, ...]
    variables: dict[str, str]
    folder: str
    scores: str


def program_of(backend: str) -> Program:
    """The program that a delegated backend runs."""
    program: Program = attribute(our_families()[BACKENDS[backend]].program)
    return program


def find_installation(program: Program, metadata: dict[str, Any]) -> tuple[Path, Path]:
    """The main file of the checkout and the Python to run it, from configuration or environment.

    Raises:
        ConfigurationError: naming which of the two is missing or wrong, and how to give it.
    """
    checkout = _named(program, "checkout", program.checkout_variable, metadata)
    main = checkout / program.main
    if not main.is_file():
        raise ConfigurationError(
            f"this is no checkout of the {program.title}: it has no {program.main}",
            where=str(checkout),
            hint=f"git clone {program.source} DIR; export {program.checkout_variable}=DIR",
        )
    python = _named(program, "python", program.python_variable, metadata)
    if not os.access(python, os.X_OK) or python.is_dir():
        raise ConfigurationError(
            f"the Python of the {program.title} is not a program that can be run",
            where=str(python),
            hint=f"export {program.python_variable}=/path/to/its/venv/bin/python",
        )
    return main, python


def _named(program: Program, what: str, variable: str, metadata: dict[str, Any]) -> Path:
    given = metadata.get(what) or os.environ.get(variable)
    if not given:
        where = {"checkout": program.source, "python": "the environment with its packages"}[what]
        raise ConfigurationError(
            f"the {program.title} needs its {what} ({where}), and none was named",
            hint=f"export {variable}=PATH, or create_world_model(..., {what}=PATH)",
        )
    return Path(str(given)).expanduser().absolute()


def check_profile(program: Program, profile: str) -> str:
    """The profile, known to the program.

    Raises:
        ConfigurationError: listing those that there are.
    """
    if profile not in program.profiles:
        raise ConfigurationError(
            f"the {program.title} has no profile {profile!r}: {', '.join(program.profiles)}",
            where="backend_profile",
            hint=did_you_mean(profile, program.profiles),
        )
    return profile


def request_of(program: Program, model_id: str, metadata: dict[str, Any], config: Any) -> Request:
    """What a handle and a TrainingConfig ask for together.

    Raises:
        ConfigurationError: for a field that was set and that no official program is told.
    """
    assert isinstance(config, TrainingConfig)
    chosen = config.set_fields
    if chosen - TOLD:
        raise ConfigurationError(
            f"a delegated run does not read {', '.join(sorted(chosen - TOLD))}",
            where="TrainingConfig",
            hint="give the program's own flags: create_world_model(..., arguments=[...])",
        )
    profile = config.backend_profile or model_id.partition(":")[2]
    device = str(metadata.get("device", "auto"))
    device = "auto" if device == "cpu" else device  # create_world_model's default, not a wish
    is_image = len(metadata.get("obs_shape") or ((0,) * (3 if program.observes_images else 1))) == 3
    request = Request(
        profile=check_profile(program, profile),
        task=str(metadata.get("task") or program.default_task),
        seed=config.seed,
        device=config.device if "device" in chosen else device,
        is_image=is_image,
        batch_size=config.batch_size if "batch_size" in chosen else None,
        learning_rate=config.learning_rate if "learning_rate" in chosen else None,
        arguments=tuple(str(argument) for argument in metadata.get("arguments", ())),
    )
    steps = _steps(program, metadata.get("environment_steps"), request, config)
    return replace(request, steps=steps)


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


def launch(program: Program, main: Path, python: Path, request: Request, folder: Path) -> Launch:
    """The command of a request, with every file below `folder`."""
    variables = {"PYTHONUNBUFFERED": "1"}
    kind, _, index = request.device.partition(":")
    if index:
        variables["CUDA_VISIBLE_DEVICES"] = index
    arguments, scores = program.command(request, kind, folder)
    command = (str(python), str(main), *arguments, *request.arguments)
    return Launch(command, variables, str(folder), str(scores))


def official_task(program: Program, env_id: str, arguments: Mapping[str, Any]) -> str:
    """The program's own name of one of our environments.

    Raises:
        ConfigurationError: when the program has no such task, or cannot be told an argument.
    """
    known = ("pixels", "repeat_action_probability") if env_id.startswith(ATARI) else ("pixels",)
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ConfigurationError(
            f"the {program.title} is not told environment_kwargs {', '.join(unknown)}",
            hint="remove them; its own configuration decides how it acts",
        )
    task = program.task_of(env_id, arguments)
    if task is None:
        raise ConfigurationError(
            f"the {program.title} has no task for the environment {env_id!r}",
            hint=f"it takes {program.default_task!r} and its like: "
            "create_world_model(..., task=...) names any of them",
        )
    return task


def control_task(env_id: str, short: Mapping[str, str]) -> tuple[str, str] | None:
    """Domain (as the program abbreviates it) and task of one of our dm_control ids, or None."""
    name, dash, task = env_id.rpartition("-v")[0].partition("-")
    if not env_id.startswith(CONTROL) or not dash:
        return None
    domain = name.removeprefix(CONTROL)
    domain = short.get(domain, domain)
    return None if "_" in domain else (domain, task)


def control_id(domain: str, task: str, short: Mapping[str, str]) -> str:
    """Our id of a dm_control task whose domain the program abbreviates."""
    long = {abbreviated: name for name, abbreviated in short.items()}
    return f"{CONTROL}{long.get(domain, domain)}-{task}-v0"
