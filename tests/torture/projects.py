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
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib.backends.backend_agg  # before the forks, not in each of them
import matplotlib.figure
import numpy as np
import torch._dynamo  # noqa: F401 - every optimiser asks for it

from worldflux import clock
from worldflux.data.sources import ReplaySource
from worldflux.project.run import train_project
from worldflux.run_log import read_rows
from worldflux.training.callbacks import Callback
from worldflux.training.checkpoints import MANIFEST, _hash_of
from worldflux.training.trainer import Trainer

FAMILIES = ("tdmpc2", "bmpc", "dreamer", "r2dreamer")
STEPS = 16
SAVE_INTERVAL = 4
REPLAY = "replay.json"

_COMMON = """
project_name = "{family}"
environment = "{environment}"
model = "{model}"

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
        "model": "tdmpc2:ci",
        "environment": "Pendulum-v1",
        "architecture": "horizon = 2\nnum_samples = 16\nnum_elites = 4\nnum_pi_trajs = 2\n"
        "iterations = 2",
        "length": 3,
    },
    "bmpc": {
        "model": "bmpc:ci",
        "environment": "Pendulum-v1",
        "architecture": "horizon = 2\nnum_samples = 16\nnum_elites = 4\nnum_pi_trajs = 2\n"
        # A small deviation: among candidates at the bounds a lost warm start would not show.
        "iterations = 2\nmax_std = 0.5\nreanalyze_interval = 3\nreanalyze_horizon = 2",
        "length": 3,
    },
    "dreamer": {
        "model": "dreamer:ci",
        "environment": "CartPole-v1",
        "architecture": 'recipe = "official"',
        "length": 6,
    },
    "r2dreamer": {
        "model": "dreamer:ci",
        "environment": "CartPole-v1",
        "architecture": 'recipe = "official"\nrepresentation = "barlow"\nprobe_decoder = true',
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
    """A user's callback that draws from Python's and numpy's streams after every update.

    At the end it writes a hash of each column of the replay buffer in memory: what was
    learned from may not show what acting left there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        row = {"step": trainer.step, "python": random.random(), "numpy": float(np.random.rand())}
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def on_train_end(self, trainer: Trainer) -> None:
        source = trainer.source
        assert isinstance(source, ReplaySource)
        buffer = source.buffer
        rows = buffer.rows(buffer.oldest_step, buffer.steps_written)
        hashes = {
            name: hashlib.sha256(column.tobytes()).hexdigest() for name, column in rows.items()
        }
        (self.path.parent / REPLAY).write_text(json.dumps(hashes))


def run(
    root: Path,
    resume: bool | Literal["auto"] = False,
    callbacks: list[Callback] | None = None,
    say: Callable[[str], None] = print,
    overrides: Sequence[str] = (),
) -> int:
    """Train the project in this process; returns the exit code."""
    outcome = train_project(
        root,
        overrides=overrides,
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


def in_parallel(
    work: Callable[[int], Any], count: int, jobs: int, folder: Path, what: str = ""
) -> list[Any]:
    """`work(0)`, `work(1)`, ... in forked processes, `jobs` at a time; their JSON-ready results.

    Says on stderr how far it is, once in five seconds.

    Raises:
        AssertionError: when a trial itself broke, with what it printed.
    """
    began = shown = time.monotonic()
    waiting, running = list(range(count)), {}

    def result(number: int) -> Path:
        return folder / f"result-{number}.json"

    while waiting or running:
        if waiting and len(running) < jobs:
            number = waiting.pop(0)
            log = folder / f"trial-{number}.log"
            running[forked(lambda n=number: _noted(work, n, result(n)), log)] = number
            continue
        pid, status = os.waitpid(-1, 0)
        number = running.pop(pid)
        log = folder / f"trial-{number}.log"
        assert status == 0, f"trial {number} of {what} broke: {log.read_text()}"
        if what and time.monotonic() - shown > 5:
            shown = time.monotonic()
            done = count - len(waiting) - len(running)
            print(f"     {what}: {done} of {count}, {shown - began:.0f} s", file=sys.stderr)
    return [json.loads(result(number).read_text()) for number in range(count)]


def _noted(work: Callable[[int], Any], number: int, path: Path) -> int:
    path.write_text(json.dumps(work(number)))
    return 0


def wait_for_work(pid: int, seconds: float) -> None:
    """Wait until a child has worked for so many seconds of processor time, or has ended.

    A moment chosen so is as far into a run on a busy machine as on an idle one.
    """
    while working_seconds(pid) < seconds:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return
        time.sleep(0.002)


def working_seconds(pid: int) -> float:
    """Processor time that a process has had so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fingerprint(root: Path) -> dict[str, Any]:
    """All that must be equal between two runs: weights, logs without times, draws, the replay."""
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
        "replay": json.loads((root / REPLAY).read_text()),
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


def bytes_below(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and bytes of every file below a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def copied(root: Path, to: Path) -> Path:
    """A copy of a project with its run."""
    shutil.copytree(root, to)
    return to


def spend_no_time_on_what_cannot_be_lost() -> None:
    """For the rest of this process and its forks: three quarters of so short a run went into it.

    Pictures are written as before, but blank; a run's needs are measured once, not for a quarter
    of a second.
    """
    matplotlib.figure.Figure.draw = lambda figure, renderer: None  # type: ignore[method-assign]
    clock.TIMED_S = 0.0
