"""Catch from pixels with and without a decoder: return, and processor seconds until it is learned.

    make learn-r2        (five seeds of each model, about three hours of a core)
    python tests/learning/learn_r2.py --seeds 2 --out learn-r2

Each run is the project that `worldflux init --yes` writes for worldflux/Catch-v0 and the model,
with another training.seed. It ends at the first evaluation that reaches the project's
evaluation.stop_at_return; "CPU s" is what the whole `worldflux train` took until then, environments
and evaluations included. "return" is the mean over 100 fresh episodes of the best checkpoint. The
models take turns, seed by seed. A run whose row is in --out is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

ENVIRONMENT = "worldflux/Catch-v0"
MODELS = {"barlow": "r2dreamer:laptop", "reconstruction": "dreamerv3:laptop"}
TARGET, EPISODES = 0.9, 100
REQUIRED = 0.8  # share of the seeds that reach it
SHARE = 0.65  # of the reconstruction's processor time, at most
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def worldflux(folder: Path, *arguments: str) -> tuple[str, float]:
    """What a command printed, and the processor seconds of it and its children."""
    command = [sys.executable, "-m", "worldflux", *arguments]
    before = os.times()
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **ONE_THREAD}, capture_output=True, text=True
    )
    after = os.times()
    if done.returncode not in (0, 3):
        raise SystemExit(f"worldflux {' '.join(arguments)} failed:\n{done.stderr}")
    spent = after.children_user + after.children_system
    return done.stdout, spent - before.children_user - before.children_system


def learn(root: Path, kind: str, seed: int, settings: list[str]) -> dict[str, Any]:
    """One run from init to a fresh evaluation; its row."""
    folder = root / f"{kind}-{seed}"
    if (folder / "row.json").is_file():
        row: dict[str, Any] = json.loads((folder / "row.json").read_text())
        return row
    shutil.rmtree(folder, ignore_errors=True)
    model = MODELS[kind]
    worldflux(root, "init", folder.name, "--yes", "--env", ENVIRONMENT, "--model", model)
    given = [f"training.seed={seed}", "gameplay.enabled=false", "training.device=cpu", *settings]
    _, cpu_s = worldflux(folder, "train", *(part for item in given for part in ("--set", item)))
    text, _ = worldflux(folder, "eval", "--episodes", str(EPISODES), "--no-video", "--json")
    manifest = json.loads((folder / "outputs" / "run_manifest.json").read_text())
    row = {
        "model": model,
        "seed": seed,
        "return": json.loads(text)["return_mean"],
        "updates": manifest["global_step"],
        "env_steps": manifest["env_steps"],
        "cpu_s": round(cpu_s, 1),
    }
    (folder / "row.json").write_text(json.dumps(row))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--models", choices=MODELS, nargs="+", default=list(MODELS))
    parser.add_argument("--out", type=Path, default=Path("learn-r2"))
    parser.add_argument("--set", dest="settings", action="append", default=[])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print("| model | seed | return | updates | env steps | CPU s |\n|---|---|---|---|---|---|")
    rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in options.models}
    for seed in range(options.seeds):
        for kind in options.models:
            row = learn(options.out, kind, seed, options.settings)
            rows[kind].append(row)
            print(f"| {' | '.join(str(value) for value in row.values())} |", flush=True)
    reached = {kind: sum(r["return"] >= TARGET for r in rows[kind]) for kind in rows}
    for kind, count in reached.items():
        print(f"{MODELS[kind]}: {count} of {options.seeds} seeds reach {TARGET:g}")
    if set(rows) != set(MODELS):
        return
    ours, theirs = (statistics.mean(r["cpu_s"] for r in rows[kind]) for kind in MODELS)
    print(f"processor time, mean over seeds: {ours / theirs:.2f} of the reconstruction's")
    if reached["barlow"] < REQUIRED * options.seeds or ours > SHARE * theirs:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
