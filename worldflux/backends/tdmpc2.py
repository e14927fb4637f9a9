"""The official TD-MPC2 as a delegated program: its flags, tasks and score files.

Facts about its command line and files: nicklashansen/tdmpc2 at e9f5932 (tdmpc2/train.py,
config.yaml, common/parser.py). It rewrites `eval.csv`, "step,episode_reward" with a row an
evaluation, and prints a line for each episode; its steps are agent steps (common/logger.py).
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldflux.core.config import TDMPC2Config
from worldflux.errors import ConfigurationError

from .program import DEBUG, Program, Request, control_id, control_task
from .scores import (
    EVALUATION_EPISODES,
    LineTail,
    NewRows,
    ReadScores,
    evaluation_row,
    parameters_in,
    plain,
)

_EVALUATION_EPISODES = 10  # config.yaml: eval_episodes
_TRAIN_LINE = re.compile(r"^ *train +.*?\bI: ([\d,]+) .*?\bR: (-?[\d.]+)")
# Abbreviated, because it cuts a name at its first dash or underscore (envs/dmcontrol.py).
_SHORT = {"ball_in_cup": "cup", "point_mass": "pointmass"}


class OfficialTDMPC2(Program):
    """nicklashansen/tdmpc2, in PyTorch."""

    title = "official TD-MPC2"
    source = "https://github.com/nicklashansen/tdmpc2"
    main = "tdmpc2/train.py"
    prefix = "TDMPC2"
    default_task = "walker-walk"
    profiles = (
        "proof_5m",
        *(f"official_{size}" for size in ("1m", "5m", "19m", "48m", "317m")),
        DEBUG,
    )
    # It makes its first update after five episodes of 500 steps, all 2,500 of its seed phase at
    # once.
    debug_steps = 3000
    observes_images = False
    preset_prefix = "tdmpc2"
    frames_per_step = 2

    def steps_of(self, request: Request, updates: int) -> int:
        """One update a step, so that both counts are the same."""
        return updates

    def command(self, request: Request, device: str, folder: Path) -> tuple[list[str], Path]:
        """Flags as `name=value` (hydra); the scores are in eval.csv."""
        if device == "cpu":
            raise ConfigurationError(
                "the official TD-MPC2 runs on CUDA only", where="device", hint='device = "cuda"'
            )
        name = "worldflux"
        arguments = [f"task={request.task}", f"seed={request.seed}", f"exp_name={name}"]
        arguments += [f"obs={'rgb' if request.is_image else 'state'}", "enable_wandb=false"]
        arguments += [f"hydra.run.dir={folder / 'hydra'}", *_size(request.profile)]
        if request.steps is not None:
            arguments.append(f"steps={request.steps}")
        if request.batch_size is not None:
            arguments.append(f"batch_size={request.batch_size}")
        if request.learning_rate is not None:
            arguments.append(f"lr={request.learning_rate}")
        return arguments, folder / "logs" / request.task / str(request.seed) / name / "eval.csv"

    def scores(self, path: Path, log: Path, command: Sequence[str]) -> ReadScores:
        """Its eval.csv, each row the mean of as many episodes as the command line says."""
        given = [word.partition("=")[2] for word in command if word.startswith("eval_episodes=")]
        episodes = int(given[-1]) if given and given[-1].isdigit() else _EVALUATION_EPISODES
        output, seen = LineTail(log), 0

        def read() -> NewRows:
            nonlocal seen
            lines = [plain(line) for line in output.lines()]
            rows = NewRows(parameters=parameters_in(lines))
            for found in filter(None, map(_TRAIN_LINE.search, lines)):
                step = int(found[1].replace(",", ""))
                entry = {"train/episode_return": float(found[2])}
                rows.metrics.append({"step": step, "env_steps": step, **entry})
            for step, score in _evaluations(path)[seen:]:
                row = evaluation_row(step, score, episodes, EVALUATION_EPISODES)
                rows.evaluations.append(row)
                seen += 1
            return rows

        return read

    def environment_id(self, task: str) -> str:
        """`walker-walk` is dm_control/walker-walk-v0."""
        domain, _, rest = task.replace("-", "_").partition("_")
        return control_id(domain, rest, _SHORT)

    def action_repeat(self, task: str) -> int:
        """Two, whatever the task."""
        return 2

    def task_of(self, env_id: str, arguments: Mapping[str, Any]) -> str | None:
        """Tasks of the control suite."""
        control = control_task(env_id, _SHORT)
        return f"{control[0]}-{control[1].replace('_', '-')}" if control is not None else None


def _size(profile: str) -> list[str]:
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


def _evaluations(path: Path) -> list[tuple[int, float]]:
    """Steps and returns of its eval.csv."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    if not text.endswith("\n"):  # it is being rewritten: next time
        text = text[: text.rfind("\n") + 1]
    found = []
    for row in csv.DictReader(io.StringIO(text)):
        try:
            found.append((int(float(row["step"])), float(row["episode_reward"])))
        except (KeyError, TypeError, ValueError):
            break
    return found


PROGRAM = OfficialTDMPC2()
