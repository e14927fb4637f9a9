"""Train TD-MPC2 on DeepMind Control tasks and draw our curves over the published ones.

    make learn-tdmpc2         (tdmpc2:laptop, four tasks, on a CPU)
    make learn-tdmpc2-gpu     (tdmpc2:official_5m, on a GPU)

Every run is its own project, trained and evaluated by the product's commands. Frames are
control steps, two for each agent step, as in the published files. A run of the laptop's model is
compared with a fraction of the published mean, one of the official model with the published mean
less two standard deviations; the exit code is 1 when a run stays under its line.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from worldflux.core.config import TDMPC2Config
from worldflux.models.catalog import default_config
from worldflux.verify.curves import Curve, built_in_curves

ACTION_REPEAT = 2
LAPTOP = "tdmpc2:laptop"
LAPTOP_SHARE = 0.8  # of the published mean
COLUMNS = "task | seed | return | published | line | frames | minutes | verdict"


@dataclass(frozen=True)
class Plan:
    """What to train: a model on tasks, for so many control steps, with so many seeds."""

    model: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    frames: int
    device: str
    out: Path


def project_file(plan: Plan, task: str, seed: int) -> dict[str, Any]:
    """worldflux.toml of one run. The laptop collects from four environments in one plan."""
    env_steps = plan.frames // ACTION_REPEAT
    laptop = plan.model == LAPTOP
    warmup = 2000 if laptop else 2500
    # Pretraining is one update for each random step, so the updates of acting are the rest.
    config = default_config(plan.model)
    assert isinstance(config, TDMPC2Config)
    per_step = config.updates_per_step
    updates = warmup + round((env_steps - warmup) * per_step)
    return {
        "project_name": f"{task}-seed{seed}",
        "environment": f"dm_control/{task}-v0",
        "model": plan.model,
        "training": {
            "total_steps": updates,
            "eval_interval": max(updates // 5, 1),
            "save_interval": max(updates // 5, 1),
            "log_interval": 200,
            "device": plan.device,
            "seed": seed,
        },
        "data": {"buffer_capacity": max(env_steps + 1000, 1000)},
        "online_collection": {
            "num_envs": 4 if laptop else 1,
            "warmup_transitions": warmup,
            "pretrain": True,
        },
        "evaluation": {"episodes": 10},
        "gameplay": {"enabled": False},
    }


def train(plan: Plan, task: str, seed: int) -> dict[str, Any]:
    """One run from its file to its row of the table; a finished run is read, not repeated."""
    folder = plan.out / f"{task}-seed{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    outputs = folder / "outputs"
    began = time.monotonic()
    if not _finished(outputs):
        (folder / "worldflux.toml").write_text(tomli_w.dumps(project_file(plan, task, seed)))
        arguments = ["train", *(["--resume"] if (outputs / "checkpoints").is_dir() else [])]
        with (folder / "log").open("a") as log:
            command = [sys.executable, "-m", "worldflux", *arguments]
            subprocess.run(command, cwd=folder, stdout=log, stderr=log, check=True)
        (folder / "seconds").write_text(f"{time.monotonic() - began:.0f}")
    return row_of(plan, task, seed, folder)


def _finished(outputs: Path) -> bool:
    manifest = outputs / "run_manifest.json"
    return manifest.is_file() and json.loads(manifest.read_text())["status"] == "completed"


def row_of(plan: Plan, task: str, seed: int, folder: Path) -> dict[str, Any]:
    """The run's last evaluation and the published figure at the same number of frames."""
    last = read_curve(folder)[-1]
    curve = published_curve(task)
    mean = float(np.interp(plan.frames, curve.steps, curve.mean))
    spread = float(np.interp(plan.frames, curve.steps, curve.sd))
    line = LAPTOP_SHARE * mean if plan.model == LAPTOP else mean - 2 * spread
    minutes = float((folder / "seconds").read_text()) / 60
    row = {
        "task": task,
        "seed": seed,
        "return": last["return_mean"],
        "published": f"{mean:.0f} ± {spread:.0f}",
        "line": line,
        "frames": last["env_steps"] * ACTION_REPEAT,
        "minutes": minutes,
        "reached": last["return_mean"] >= line,
    }
    verdict = "reached" if row["reached"] else "MISSED"
    print(
        f"| {task} | {seed} | {row['return']:.0f} | {row['published']} | {line:.0f} | "
        f"{row['frames']} | {minutes:.0f} | {verdict} |",
        flush=True,
    )
    return row


def published_curve(task: str) -> Curve:
    """The official results from state, as the package carries them."""
    found = [c for c in built_in_curves() if c.source.id == "tdmpc2-state" and c.task == task]
    if not found:
        raise SystemExit(f"no published curve of {task!r}")
    return found[0]


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """The evaluations of a run, oldest first."""
    text = (folder / "outputs" / "eval.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def draw(plan: Plan, path: Path) -> None:
    """Every task's curves over the published mean and its standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.4 * len(plan.tasks), 3.2), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, task in zip(
        figure.subplots(1, len(plan.tasks), squeeze=False)[0], plan.tasks, strict=True
    ):
        _draw_published(axes, published_curve(task), plan.frames)
        for seed in plan.seeds:
            rows = read_curve(plan.out / f"{task}-seed{seed}")
            frames = [row["env_steps"] * ACTION_REPEAT / 1000 for row in rows]
            returns = [row["return_mean"] for row in rows]
            axes.plot(frames, returns, marker=".", label=f"{plan.model}, seed {seed}")
        axes.set_title(task)
        axes.set_xlabel("thousand frames")
        axes.set_ylim(0, 1020)
        axes.legend(fontsize=7, loc="lower right")
    figure.savefig(path, format="png")


def _draw_published(axes: Any, curve: Curve, frames: int) -> None:
    """The published points up to `frames`; what lies between them was not published."""
    points = [
        (step / 1000, mean, sd)
        for step, mean, sd in zip(curve.steps, curve.mean, curve.sd, strict=True)
        if step <= frames
    ]
    steps, means, spreads = zip(*points, strict=True)
    axes.errorbar(
        steps, means, spreads, fmt="s", color="grey", capsize=4, label="published (official 5M)"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=LAPTOP)
    parser.add_argument("--tasks", nargs="+", default=[])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("learn-tdmpc2"))
    options = parser.parse_args()
    last = "walker-stand" if options.model == LAPTOP else "walker-walk"
    tasks = options.tasks or ["cartpole-balance", "cartpole-swingup", "cup-catch", last]
    plan = Plan(
        options.model,
        tuple(tasks),
        tuple(options.seeds),
        options.frames,
        options.device,
        options.out,
    )
    print(f"| {COLUMNS} |\n|{'---|' * 8}", flush=True)
    runs = [(task, seed) for task in plan.tasks for seed in plan.seeds]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows = list(pool.map(lambda run: train(plan, *run), runs))
    draw(plan, plan.out / "curves.png")
    reached = sum(row["reached"] for row in rows)
    print(f"\n{reached} of {len(rows)} runs reach their line; {plan.out / 'curves.png'}")
    if reached < len(rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
