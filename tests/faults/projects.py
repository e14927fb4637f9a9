"""The smallest project of each family, and trainers of it in forked processes.

Forking after torch was imported once makes a killed trainer cost a second and not four.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.backends.backend_agg  # before the forks, not in each of them
import matplotlib.figure  # noqa: F401
import numpy as np

from worldflux.project.run import train_project
from worldflux.training.callbacks import Callback
from worldflux.training.checkpoints import MANIFEST, _hash_of
from worldflux.training.run_log import read_rows
from worldflux.training.trainer import Trainer

FAMILIES = ("tdmpc2", "dreamer")
STEPS = 16
SAVE_INTERVAL = 4

_COMMON = """
project_name = "{family}"
environment = "{environment}"
model = "{family}:ci"

[architecture]
{architecture}

[training]
total_steps = {steps}
batch_size = 4
sequence_length = {length}
eval_interval = 8
save_interval = {save_interval}
log_interval = 5
device = "cpu"

[data]
buffer_capacity = 400

[online_collection]
warmup_transitions = 30
pretrain = false
num_envs = 2
collect_steps_per_update = 1.5

[evaluation]
episodes = 1

[gameplay]
enabled = false
"""
_SETTINGS: dict[str, dict[str, Any]] = {
    "tdmpc2": {
        "environment": "Pendulum-v1",
        "architecture": "horizon = 2\nnum_samples = 16\nnum_elites = 4\nnum_pi_trajs = 2\n"
        "iterations = 2",
        "length": 3,
    },
    "dreamer": {
        "environment": "CartPole-v1",
        "architecture": 'recipe = "official"',
        "length": 6,
    },
}
_SHORT_EPISODES = """
import gymnasium

def make_env(environment, render_mode=None):
    return gymnasium.make(environment, render_mode=render_mode, max_episode_steps=5)
"""


def write_project(root: Path, family: str, steps: int = STEPS) -> Path:
    """A project whose run takes about a second."""
    root.mkdir(parents=True)
    settings = {"steps": steps, "save_interval": SAVE_INTERVAL, **_SETTINGS[family]}
    (root / "worldflux.toml").write_text(_COMMON.format(family=family, **settings))
    (root / "dataset.py").write_text(_SHORT_EPISODES)
    return root


class Dice(Callback):
    """A user's callback that draws from Python's and numpy's streams after every update."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        row = {"step": trainer.step, "python": random.random(), "numpy": float(np.random.rand())}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def run(
    root: Path,
    resume: bool = False,
    callbacks: list[Callback] | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Train the project in this process; returns the exit code."""
    outcome = train_project(
        root,
        resume=resume,
        callbacks=[Dice(root / "dice.jsonl"), *(callbacks or [])],
        say=say,
    )
    return outcome.exit_code


def forked(work: Callable[[], int | None], log: Path | None = None) -> int:
    """Start `work` in a forked process that exits with what it returns; its pid."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    target = os.open(os.devnull if log is None else log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    code = 1
    try:
        code = work() or 0
    except BaseException as error:
        traceback.print_exc()
        code = getattr(error, "exit_code", 1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finished(work: Callable[[], int | None], log: Path | None = None) -> int:
    """Run `work` in a forked process to its end; returns the exit code (or minus the signal)."""
    _, status = os.waitpid(forked(work, log), 0)
    return os.waitstatus_to_exitcode(status)


def fingerprint(root: Path) -> dict[str, Any]:
    """All that must be equal between two runs: weights, logs without times, the user's draws."""
    outputs = root / "outputs"
    state = json.loads((outputs / "checkpoints" / name_of(STEPS) / "state.json").read_text())
    weights = outputs / "checkpoints" / name_of(STEPS) / "model.safetensors"
    dice = {row["step"]: row for row in read_rows(root / "dice.jsonl")}
    manifest = json.loads((outputs / "run_manifest.json").read_text())
    return {
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "metrics": [_timeless(row) for row in read_rows(outputs / "metrics.jsonl")],
        "evaluations": [_timeless(row) for row in read_rows(outputs / "eval.jsonl")],
        "best": state["best"],
        "env_steps": state["env_steps"],
        "dice": [dice[step] for step in sorted(dice)],
        "status": manifest["status"],
    }


def name_of(step: int) -> str:
    """Folder name of a checkpoint."""
    return f"step-{step:09d}"


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    timed = ("time", "wall_s", "rate/", "system/")
    return {k: v for k, v in row.items() if not k.startswith(timed)}


def rehash(checkpoint: Path) -> None:
    """Make a checkpoint that was changed on purpose look whole."""
    manifest = json.loads((checkpoint / MANIFEST).read_text())
    del manifest["sha256"]
    for name in manifest["files"]:
        data = (checkpoint / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["sha256"] = _hash_of(manifest)
    (checkpoint / MANIFEST).write_text(json.dumps(manifest))


def copied(root: Path, to: Path) -> Path:
    """A copy of a project with its run."""
    shutil.copytree(root, to)
    return to
