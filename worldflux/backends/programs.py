"""The official programs: what a job asks of them, and the command that asks it.

Facts about their command lines and files: danijar/dreamerv3 at e3f0224 (README, dreamerv3/main.py
and configs.yaml), nicklashansen/tdmpc2 at e9f5932 (tdmpc2/train.py, config.yaml, common/parser.py).
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from worldflux.core.config import TDMPC2Config
from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.training.config import TrainingConfig

DEBUG = "debug"
# A debug run that is not told how long ends by itself. The official TD-MPC2 makes its first update
# after five episodes of 500 steps, all 2,500 of its seed phase at once.
_DEBUG_STEPS = {"dreamer": 1000, "tdmpc2": 3000}
_EVALUATION_EPISODES = 10  # of the official TD-MPC2 (config.yaml: eval_episodes)
# Steps that the official DreamerV3 replays for each one that it makes (configs.yaml: train_ratio).
_TRAIN_RATIO = {
    "procgen": 64,
    "atari100k": 256,
    "crafter": 512,
    "dmc_proprio": 1024,
    "dmc_vision": 256,
    "bsuite": 1024,
    DEBUG: 8,
}
_DEFAULT_TRAIN_RATIO = 32
_DECIDE_LENGTH = ("--configs", "--run.train_ratio", "--batch_size", "--batch_length")
_BATCH, _DEBUG_BATCH = (16, 64), (8, 10)  # sequences, and steps of each


# Fields of TrainingConfig that an official program is told, or that choose it.
_TOLD_VALUES = ("total_steps", "batch_size", "learning_rate", "seed", "device", "output_dir")
TOLD = frozenset((*_TOLD_VALUES, "backend", "backend_profile"))


@dataclass(frozen=True)
class Program:
    """An official program: where its checkout and Python are named, and its main file.

    `profiles` are the sizes that it has by itself, and a quick one for checks ("debug").
    """

    family: str
    title: str
    source: str
    main: str
    prefix: str
    default_task: str
    profiles: tuple[str, ...]

    @property
    def checkout_variable(self) -> str:
        """Environment variable of the checkout's folder."""
        return f"WORLDFLUX_{self.prefix}_CHECKOUT"

    @property
    def python_variable(self) -> str:
        """Environment variable of the Python that has the program's packages."""
        return f"WORLDFLUX_{self.prefix}_PYTHON"


DREAMERV3 = Program(
    family="dreamer",
    title="official DreamerV3",
    source="https://github.com/danijar/dreamerv3",
    main="dreamerv3/main.py",
    prefix="DREAMERV3",
    default_task="dmc_walker_walk",
    profiles=(
        *(f"official_{size}" for size in ("xl", "12m", "25m", "50m", "100m", "200m", "400m")),
        DEBUG,
    ),
)
TDMPC2 = Program(
    family="tdmpc2",
    title="official TD-MPC2",
    source="https://github.com/nicklashansen/tdmpc2",
    main="tdmpc2/train.py",
    prefix="TDMPC2",
    default_task="walker-walk",
    profiles=(
        "proof_5m",
        *(f"official_{size}" for size in ("1m", "5m", "19m", "48m", "317m")),
        DEBUG,
    ),
)
PROGRAMS = {program.family: program for program in (DREAMERV3, TDMPC2)}


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


@dataclass(frozen=True)
class Launch:
    """A command, the variables beside the caller's own, and the folder of the program's files."""

    command: tuple[str, ...]
    variables: dict[str, str]
    folder: str
    scores: str


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
    is_image = len(metadata.get("obs_shape") or ((0,) * (3 if program is DREAMERV3 else 1))) == 3
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
        return _DEBUG_STEPS[program.family] if request.profile == DEBUG else None
    if program is TDMPC2:  # it makes one update a step, so that both counts are the same
        return config.total_steps
    return _dreamerv3_steps(request, config.total_steps)


def _dreamerv3_steps(request: Request, updates: int) -> int:
    """Agent steps after which the official DreamerV3 has made that many updates.

    It begins when the replay holds a batch, and from then on replays `train_ratio` steps a step
    (embodied/run/train.py).

    Raises:
        ConfigurationError: when the user's own flags change what that follows from.
    """
    changed = [word for word in request.arguments if word.partition("=")[0] in _DECIDE_LENGTH]
    if changed:
        raise ConfigurationError(
            f"how many environment steps {updates} updates take depends on {', '.join(changed)}",
            where="total_steps",
            hint="create_world_model(..., environment_steps=N) says how long it runs",
        )
    sequences, length = _DEBUG_BATCH if request.profile == DEBUG else _BATCH
    batch = (request.batch_size or sequences) * length
    ratios = [_TRAIN_RATIO[block] for block in _blocks(request) if block in _TRAIN_RATIO]
    return batch + math.ceil(updates * batch / (ratios or [_DEFAULT_TRAIN_RATIO])[-1])


def launch(program: Program, main: Path, python: Path, request: Request, folder: Path) -> Launch:
    """The command of a request, with every file below `folder`."""
    variables = {"PYTHONUNBUFFERED": "1"}
    kind, _, index = request.device.partition(":")
    if index:
        variables["CUDA_VISIBLE_DEVICES"] = index
    build = _dreamerv3 if program is DREAMERV3 else _tdmpc2
    arguments, scores = build(request, kind, folder)
    command = (str(python), str(main), *arguments, *request.arguments)
    return Launch(command, variables, str(folder), str(scores))


def evaluation_episodes(command: Sequence[str]) -> int:
    """Episodes of an evaluation of the official TD-MPC2, as its command line says."""
    told = [word.partition("=")[2] for word in command if word.startswith("eval_episodes=")]
    return int(told[-1]) if told and told[-1].isdigit() else _EVALUATION_EPISODES


def _blocks(request: Request) -> list[str]:
    """The blocks of the official DreamerV3's configs.yaml, in the order in which they count."""
    suite = request.task.partition("_")[0]
    blocks = []
    if suite == "dmc":
        blocks.append("dmc_vision" if request.is_image else "dmc_proprio")
    elif suite in ("atari", "atari100k", "crafter", "dmlab", "procgen", "minecraft", "bsuite"):
        blocks.append(suite)
    size = request.profile.removeprefix("official_")
    return [*blocks, {"xl": "size200m", DEBUG: DEBUG}.get(size, f"size{size}")]


def _dreamerv3(request: Request, device: str, folder: Path) -> tuple[list[str], Path]:
    blocks = _blocks(request)
    arguments = ["--logdir", str(folder), "--configs", *blocks, "--task", request.task]
    arguments += ["--seed", str(request.seed)]
    if request.steps is not None:
        arguments += ["--run.steps", str(request.steps)]
    if device in ("cpu", "cuda"):
        arguments += ["--jax.platform", device]
    if request.batch_size is not None:
        arguments += ["--batch_size", str(request.batch_size)]
    if request.learning_rate is not None:
        arguments += ["--agent.opt.lr", str(request.learning_rate)]
    return arguments, folder


def _tdmpc2(request: Request, device: str, folder: Path) -> tuple[list[str], Path]:
    if device == "cpu":
        raise ConfigurationError(
            "the official TD-MPC2 runs on CUDA only", where="device", hint='device = "cuda"'
        )
    name = "worldflux"
    arguments = [f"task={request.task}", f"seed={request.seed}", f"exp_name={name}"]
    arguments += [f"obs={'rgb' if request.is_image else 'state'}", "enable_wandb=false"]
    arguments += [f"hydra.run.dir={folder / 'hydra'}", *_tdmpc2_size(request.profile)]
    if request.steps is not None:
        arguments.append(f"steps={request.steps}")
    if request.batch_size is not None:
        arguments.append(f"batch_size={request.batch_size}")
    if request.learning_rate is not None:
        arguments.append(f"lr={request.learning_rate}")
    return arguments, folder / "logs" / request.task / str(request.seed) / name / "eval.csv"


def _tdmpc2_size(profile: str) -> list[str]:
    if profile == DEBUG:  # the program has none by that name: its smallest model, a few episodes
        return ["model_size=1", "eval_freq=1000", "eval_episodes=1", "compile=false"]
    if profile.startswith("official_"):
        return [f"model_size={profile.removeprefix('official_').removesuffix('m')}"]
    size = TDMPC2Config.from_size(profile)
    return [
        f"enc_dim={size.enc_dim or size.hidden_dim}",
        f"mlp_dim={size.hidden_dim}",
        f"latent_dim={size.latent_dim}",
        f"num_enc_layers={size.num_enc_layers}",
        f"num_q={size.num_q_networks}",
    ]
