"""The official DreamerV3 as a delegated program: its flags, tasks and score files.

Facts about its command line and files: danijar/dreamerv3 at e3f0224 (README, dreamerv3/main.py and
configs.yaml). It appends JSON objects a line to `metrics.jsonl` (everything, an episode's return as
"episode/score") and `scores.jsonl` (the returns alone); "step" counts environment frames, action
repeat included (elements/logger.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError

from .program import (
    ATARI,
    DEBUG,
    Program,
    Request,
    control_id,
    control_task,
)
from .scores import (
    TRAINING_EPISODES,
    LineTail,
    NewRows,
    ReadScores,
    Row,
    evaluation_row,
    parameters_in,
)

# Steps that it replays for each one that it makes (configs.yaml: train_ratio).
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
_RENAMED = {"episode/score": "train/episode_return", "episode/length": "train/episode_length"}
# Abbreviated, because it cuts a name at its first underscore (embodied/envs/dmc.py).
_SHORT = {"ball_in_cup": "cup"}
_STICKY = 0.25  # of Gymnasium's v5 games, and of its suite "atari"
_SUITES = ("atari", "atari100k", "crafter", "dmlab", "procgen", "minecraft", "bsuite")


class OfficialDreamerV3(Program):
    """danijar/dreamerv3, in JAX."""

    title = "official DreamerV3"
    source = "https://github.com/danijar/dreamerv3"
    main = "dreamerv3/main.py"
    prefix = "DREAMERV3"
    default_task = "dmc_walker_walk"
    profiles = (
        *(f"official_{size}" for size in ("xl", "12m", "25m", "50m", "100m", "200m", "400m")),
        DEBUG,
    )
    debug_steps = 1000
    observes_images = True
    preset_prefix = "dreamerv3"
    frames_per_step = 1

    def steps_of(self, request: Request, updates: int) -> int:
        """It begins when the replay holds a batch, and from then on replays `train_ratio` steps a
        step (embodied/run/train.py).
        """
        changed = [word for word in request.arguments if word.partition("=")[0] in _DECIDE_LENGTH]
        if changed:
            raise ConfigurationError(
                f"how many environment steps {updates} updates take depends on "
                + ", ".join(changed),
                where="total_steps",
                hint="create_world_model(..., environment_steps=N) says how long it runs",
            )
        sequences, length = _DEBUG_BATCH if request.profile == DEBUG else _BATCH
        batch = (request.batch_size or sequences) * length
        ratios = [_TRAIN_RATIO[block] for block in _blocks(request) if block in _TRAIN_RATIO]
        return batch + math.ceil(updates * batch / (ratios or [_DEFAULT_TRAIN_RATIO])[-1])

    def command(self, request: Request, device: str, folder: Path) -> tuple[list[str], Path]:
        """Flags as `--name value`; the scores are in its logdir."""
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

    def scores(self, path: Path, log: Path, command: Sequence[str]) -> ReadScores:
        """Its two JSONL files; an evaluation is a training episode."""
        output, metrics = LineTail(log), LineTail(path / "metrics.jsonl")
        scores = LineTail(path / "scores.jsonl")

        def read() -> NewRows:
            rows = NewRows(parameters=parameters_in(output.lines()))
            for content in _objects(metrics):
                named = {_RENAMED.get(name, name): value for name, value in content.items()}
                rows.metrics.append({**named, "env_steps": content["step"]})
            for content in _objects(scores):
                score = content.get("episode/score")
                if isinstance(score, (int, float)):
                    row = evaluation_row(content["step"], float(score), 1, TRAINING_EPISODES)
                    rows.evaluations.append(row)
            return rows

        return read

    def environment_id(self, task: str) -> str:
        """`dmc_walker_walk` is dm_control/walker-walk-v0, `atari_pong` ALE/Pong-v5."""
        suite, _, rest = task.partition("_")
        if suite == "dmc":
            domain, _, name = rest.partition("_")
            return control_id(domain, name, _SHORT)
        if suite in ("atari", "atari100k"):
            name = "jamesbond" if rest == "james_bond" else rest
            return f"{ATARI}{''.join(word.capitalize() for word in name.split('_'))}-v5"
        return task

    def environment_arguments(self, task: str) -> dict[str, Any]:
        """Sticky actions (configs.yaml, env)."""
        sticky = {"atari": _STICKY, "atari100k": 0.0}
        suite = task.partition("_")[0]
        return {"repeat_action_probability": sticky[suite]} if suite in sticky else {}

    def action_repeat(self, task: str) -> int:
        """configs.yaml, env."""
        return {"atari": 4, "atari100k": 4, "dmlab": 4}.get(task.partition("_")[0], 1)

    def task_of(self, env_id: str, arguments: Mapping[str, Any]) -> str | None:
        """`dmc_*` of the control suite, `atari_*` or `atari100k_*` of a game."""
        control = control_task(env_id, _SHORT)
        if control is not None:
            return f"dmc_{control[0]}_{control[1]}"
        if not env_id.startswith(ATARI):
            return None
        game = env_id.removeprefix(ATARI).rpartition("-v")[0]
        suite = "atari" if arguments.get("repeat_action_probability", _STICKY) else "atari100k"
        return f"{suite}_{re.sub(r'(?<=[a-z])(?=[A-Z])', '_', game).lower()}"


def _blocks(request: Request) -> list[str]:
    """The blocks of its configs.yaml, in the order in which they count."""
    suite = request.task.partition("_")[0]
    blocks = []
    if suite == "dmc":
        blocks.append("dmc_vision" if request.is_image else "dmc_proprio")
    elif suite in _SUITES:
        blocks.append(suite)
    size = request.profile.removeprefix("official_")
    return [*blocks, {"xl": "size200m", DEBUG: DEBUG}.get(size, f"size{size}")]


def _objects(tail: LineTail) -> Iterator[Row]:
    for content in tail.rows():
        if isinstance(content.get("step"), (int, float)):
            content["step"] = int(content["step"])
            numbers = {k: v for k, v in content.items() if isinstance(v, (int, float))}
            yield numbers


PROGRAM = OfficialDreamerV3()
