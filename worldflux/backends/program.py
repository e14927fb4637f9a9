"""Official programs: the handle of a model that one of them runs, and what a job asks of it.

What only one program knows (its flags, tasks and files) is in `tdmpc2.py` and `dreamerv3.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.models.registry import attribute, our_families

from .scores import ReadScores

NATIVE = "native_torch"
# Backend -> the family that it runs.
BACKENDS = {name: row.name for row in our_families().values() for name in row.backends}
# Options of `create_world_model(..., backend=...)`: the observation (an image or a vector), the
# official program's task, where it is installed, how long it runs, its further flags.
OPTIONS: tuple[str, ...] = ("obs_shape", "action_dim", "device", "task", "checkout", "python")
OPTIONS += ("environment_steps", "arguments")
DEBUG = "debug"
CONTROL, ATARI = "dm_control/", "ALE/"  # namespaces of our environments
# Fields of TrainingConfig that an official program receives, or that choose it.
PASSED_ON = {"total_steps", "batch_size", "learning_rate", "seed", "device", "output_dir"}
PASSED_ON |= {"backend", "backend_profile"}


@dataclass(frozen=True)
class OfficialBackendHandle:
    """What to run where: `Trainer(handle, config).submit()` starts it."""

    backend: str
    model_id: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


def open_handle(
    backend: str, model_id: str, family: str, metadata: Mapping[str, Any]
) -> OfficialBackendHandle:
    """The handle of a model on a delegated backend."""
    if backend not in BACKENDS:
        raise ConfigurationError(
            f"there is no backend {backend!r}: known are {', '.join((NATIVE, *BACKENDS))}",
            hint=did_you_mean(backend, (NATIVE, *BACKENDS)),
        )
    if BACKENDS[backend] != family:
        fitting = ", ".join(name for name, runs in BACKENDS.items() if runs == family)
        raise ConfigurationError(
            f"backend {backend!r} does not run {model_id}", hint=f"backends that do: {fitting}"
        )
    for name in metadata:
        if name not in OPTIONS:
            raise ConfigurationError(
                f"a delegated backend takes no {name!r}: it takes {', '.join(OPTIONS)}",
                hint=did_you_mean(name, OPTIONS)
                or "the official program's own flags: arguments=[...]",
            )
    return OfficialBackendHandle(backend, model_id, dict(metadata))


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
    """An official program.

    Attributes:
        main: its main file in the checkout.
        prefix: of the environment variables that name its checkout and Python.
        profiles: the sizes that it has by itself, and a quick one for checks ("debug").
        debug_steps: how long a debug run is by default, so that it ends by itself.
        observes_images: what it is given where nobody says.
        preset_prefix: of the catalogue ids of its profiles.
        frames_per_step: of one step of its score files.
    """

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

    @abstractmethod
    def steps_of(self, request: Request, updates: int) -> int:
        """Agent steps after which it has made that many gradient updates."""

    @abstractmethod
    def command(self, request: Request, device: str, folder: Path) -> tuple[list[str], Path]:
        """Its arguments, with every file below `folder`, and where its scores will be."""

    @abstractmethod
    def scores(self, path: Path, log: Path, command: Sequence[str]) -> ReadScores:
        """The reader of what a run of it writes."""

    @abstractmethod
    def environment_id(self, task: str) -> str:
        """Our id of one of its tasks, where there is one; else its own name."""

    def environment_arguments(self, task: str) -> dict[str, Any]:
        """The arguments with which our environment is the official one."""
        return {}

    @abstractmethod
    def action_repeat(self, task: str) -> int:
        """Frames of one action, as its own configuration has it."""

    @abstractmethod
    def task_of(self, env_id: str, arguments: Mapping[str, Any]) -> str | None:
        """Its own name of one of our environments; None where it has no such task."""


def program_of(backend: str) -> Program:
    """The program that a delegated backend runs."""
    program: Program = attribute(our_families()[BACKENDS[backend]].program)
    return program


def official_task(program: Program, env_id: str, arguments: Mapping[str, Any]) -> str:
    """The program's own name of one of our environments."""
    known = ("pixels", "repeat_action_probability") if env_id.startswith(ATARI) else ("pixels",)
    unknown = sorted(set(arguments) - set(known))
    if unknown:
        raise ConfigurationError(
            f"the {program.title} does not take environment_kwargs {', '.join(unknown)}",
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
