"""Pendulum with a heavier mass: from a trained run and from scratch, environment steps to a return.

    make learn-finetune        (five seeds, one run at a time)

One agent learns the ordinary pendulum first. Then, for each seed, two runs learn the heavier one
until an evaluation reaches the target: one from new weights after random steps, one with
`worldflux train --from` that acts with the weights it took, and learns at half the rate. A finished
run is not repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = """
project_name = "pendulum"
environment = "Pendulum-v1"
model = "tdmpc2:ci"
[environment_kwargs]
mass = 1.0
[architecture]
hidden_dim = 64
latent_dim = 64
horizon = 3
num_samples = 64
num_elites = 16
num_pi_trajs = 16
iterations = 3
momentum = 0.0
gamma = 0.975
tau = 0.03
vmin = -7.0
vmax = 1.0
[training]
total_steps = 3500
batch_size = 64
learning_rate = 1e-3
eval_interval = 125
save_interval = 2000
device = "cpu"
[data]
buffer_capacity = 10_000
[online_collection]
warmup_transitions = 600
pretrain = true
collect_steps_per_update = 1.0
[evaluation]
episodes = 6
[gameplay]
enabled = false
[inference]
horizon = 1
"""
MAKE_ENV = """
import gymnasium


def make_env(render_mode=None, mass=1.0):
    env = gymnasium.make("Pendulum-v1", render_mode=render_mode)
    env.unwrapped.m = mass
    return env
"""


def worldflux(root: Path, *arguments: str) -> str:
    """What a command prints; ends the study where it fails."""
    command = [sys.executable, "-m", "worldflux", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"worldflux {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def train(root: Path, name: str, *options: str) -> dict[str, Any]:
    """One run, unless it is there; its manifest."""
    folder = root / name
    manifest = folder / "run_manifest.json"
    if not manifest.is_file() or json.loads(manifest.read_text())["status"] != "completed":
        start = ["train", "--quiet", "--overwrite", "--output-dir", str(folder)]
        worldflux(root, *start, *options)
    content: dict[str, Any] = json.loads(manifest.read_text())
    return content


def reached(folder: Path, target: float) -> int | None:
    """Environment steps at the first evaluation that reaches the target."""
    rows = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    return next((row["env_steps"] for row in rows if row["return_mean"] >= target), None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--mass", type=float, default=1.4)
    parser.add_argument("--target", type=float, default=-300.0)
    parser.add_argument("--out", type=Path, default=Path("learn-finetune"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    root = given.out.resolve()
    (root / "worldflux.toml").write_text(PROJECT)
    (root / "dataset.py").write_text(MAKE_ENV)
    source = train(root, "source", "--set", "evaluation.stop_at_return=-180")
    print(f"source: {source['env_steps']} steps, return {source['best']['return_mean']:.1f}")
    print("| seed | steps from scratch | steps with --from | share |", flush=True)
    print("|---|---|---|---|", flush=True)
    shares = []
    for seed in range(given.seeds):
        common = ["--seed", str(seed), "--set", f"environment_kwargs.mass={given.mass}"]
        common += ["--set", f"evaluation.stop_at_return={given.target}"]
        train(root, f"scratch-{seed}", *common)
        own = ["--from", "source", "--set", "online_collection.warmup_transitions=0"]
        own += ["--set", "training.learning_rate=5e-4"]  # gentle with what is known
        train(root, f"tuned-{seed}", *common, *own)
        steps = [reached(root / f"{kind}-{seed}", given.target) for kind in ("scratch", "tuned")]
        share = None if None in steps else steps[1] / steps[0]  # type: ignore[operator]
        shares.append(share)
        shown = "-" if share is None else f"{share:.2f}"
        print(f"| {seed} | {steps[0]} | {steps[1]} | {shown} |", flush=True)
    known = [share for share in shares if share is not None]
    good = sum(share <= 0.5 for share in known)
    print(f"\n{good} of {given.seeds} within half the steps; median {statistics.median(known):.2f}")
    if good < given.seeds:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
