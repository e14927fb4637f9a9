"""Train bmpc:laptop and tdmpc2:laptop side by side on DeepMind Control; compare planner and policy.

    make learn-bmpc         (cup-catch and cartpole-swingup, 100,000 frames, hours on a CPU)
    python tests/learning/learn_bmpc.py --tasks cup-catch --seeds 1 2 --frames 20000

Both models get the same project, seeds and evaluations; one run at a time, on one thread. A run
that is finished is read, an interrupted one resumed. The last columns are the published means at
the same number of frames.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
from learn_tdmpc2 import ACTION_REPEAT, LAPTOP, Plan, project_file, read_curve

from worldflux.verify.curves import built_in_curves

MODELS = ("bmpc:laptop", LAPTOP)
COLUMNS = (
    "task | model | seed | frames | planner | policy alone | CPU minutes | BMPC published | "
    "TD-MPC2 published"
)


def train(folder: Path, settings: dict[str, Any]) -> None:
    """Train the project in `folder`, or continue it; its processor time goes to a file beside."""
    outputs, spent = folder / "outputs", folder / "cpu_seconds"
    manifest = outputs / "run_manifest.json"
    if manifest.is_file() and json.loads(manifest.read_text())["status"] == "completed":
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "worldflux.toml").write_text(tomli_w.dumps(settings))
    resumes = ["--resume"] if (outputs / "checkpoints").is_dir() else []
    before = _children_s()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        with (folder / "log").open("a") as log:
            command = [sys.executable, "-m", "worldflux", "train", *resumes]
            subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log, check=True)
    finally:
        known = float(spent.read_text()) if spent.is_file() else 0.0
        spent.write_text(f"{known + _children_s() - before:.1f}")


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def published(source: str, task: str, frames: int) -> str:
    """Mean and deviation of a built-in curve at so many frames; "-" where it has none."""
    for curve in built_in_curves():
        if curve.source.id == source and curve.task == task:
            mean, sd = (np.interp(frames, curve.steps, y) for y in (curve.mean, curve.sd))
            return f"{mean:.0f} ± {sd:.0f}"
    return "-"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--tasks", nargs="+", default=["cup-catch", "cartpole-swingup"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--out", type=Path, default=Path("learn-bmpc"))
    options = parser.parse_args()
    print(f"| {COLUMNS} |\n|{'---|' * 9}", flush=True)
    for task in options.tasks:
        for seed in options.seeds:
            for model in options.models:
                plan = Plan(LAPTOP, (task,), (seed,), options.frames, "cpu", options.out)
                settings = project_file(plan, task, seed) | {"model": model}
                settings["evaluation"] |= {"policy": "plan"}
                folder = options.out / f"{task}-{model.partition(':')[0]}-seed{seed}"
                train(folder, settings)
                print(row_of(folder, task, model, seed), flush=True)


def row_of(folder: Path, task: str, model: str, seed: int) -> str:
    """The run's last evaluation."""
    last = read_curve(folder)[-1]
    frames = last["env_steps"] * ACTION_REPEAT
    minutes = float((folder / "cpu_seconds").read_text()) / 60
    curves = [published(source, task, frames) for source in ("bmpc-state", "tdmpc2-state")]
    returns = [f"{last[f'return_mean_{policy}']:.0f}" for policy in ("plan", "prior")]
    cells = [task, model, str(seed), f"{frames:,}", *returns, f"{minutes:.0f}", *curves]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
