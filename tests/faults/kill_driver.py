"""Forks trainers of one project and kills them at random moments; prints what each kill left.

A process of its own, because it forks after importing torch once: a kill then costs a second and
not the four of a fresh interpreter.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from worldflux.project.manifest import read_manifest
from worldflux.project.run import train_project
from worldflux.training.checkpoints import CheckpointStore


def trainer_process(root: Path, resume: bool, steps: int = 1_000_000) -> int:
    """Fork a trainer of `steps` updates; returns its pid."""
    pid = os.fork()
    if pid == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        try:
            changes = [f"training.total_steps={steps}", "training.save_interval=5"]
            changes.append("training.eval_interval=1000000")
            train_project(root, overrides=changes, resume=resume, say=lambda line: None)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return pid


def kill_once(root: Path, resume: bool, delay_s: float) -> dict[str, object]:
    """Let a trainer work for `delay_s`, kill it, and look at what stands."""
    pid = trainer_process(root, resume)
    store = CheckpointStore(root / "outputs" / "checkpoints")
    deadline = time.monotonic() + 60
    while not resume and not store.steps() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay_s)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    newest, problems = store.newest_valid()
    return {
        "killed": os.WIFSIGNALED(status),
        "checkpoint": None if newest is None else newest.name,
        "damaged": problems,
        "status": read_manifest(root / "outputs")["status"],
    }


def main() -> None:
    root, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    rng = random.Random(seed)
    found = [kill_once(root, index > 0, rng.uniform(0.0, 1.2)) for index in range(kills)]
    newest = CheckpointStore(root / "outputs" / "checkpoints").steps()[-1]
    pid = trainer_process(root, resume=True, steps=newest + 10)
    _, status = os.waitpid(pid, 0)
    manifest = read_manifest(root / "outputs")
    last = {"exit": os.waitstatus_to_exitcode(status), "status": manifest["status"]}
    print(
        json.dumps({"kills": found, "last": {**last, "further": manifest["global_step"] - newest}})
    )


if __name__ == "__main__":
    main()
