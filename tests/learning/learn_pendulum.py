"""Train the demo's project with several seeds and print the table of docs/results.md.

    make learn        (ten seeds, two at a time)
    make learn-shards (five seeds over two shards, and five without)

Each seed is the project that `worldflux init --yes` writes, with another training.seed, and nothing
else changed but what --set names. "best" is the mean over 20 fresh episodes of the best checkpoint,
"last" the run's own last evaluation, over its 20 episodes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

TARGET = -200.0


def worldflux(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "worldflux", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"worldflux {' '.join(arguments)} failed:\n{done.stderr}")
    return done.stdout


def learn(root: Path, seed: int, settings: list[str]) -> dict[str, Any]:
    """One seed from init to verify; returns the row of the table."""
    worldflux(root, "init", f"seed-{seed}", "--yes")
    folder = root / f"seed-{seed}"
    began = time.monotonic()
    worldflux(folder, "train", "--set", f"training.seed={seed}", *settings)
    train_s = time.monotonic() - began
    report = json.loads(worldflux(folder, "eval", "--episodes", "20", "--no-video", "--json"))
    verdict = json.loads(worldflux(folder, "verify", "--json"))
    manifest = json.loads((folder / "outputs" / "run_manifest.json").read_text())
    row = {
        "seed": seed,
        "return": report["return_mean"],
        "last": manifest["final"]["return_mean"],
        "worst": min(report["returns"]),
        "random": report["random_return_mean"],
        "env_steps": manifest["env_steps"],
        "classification": manifest["run_classification"],
        "verify": verdict["verdict"],
        "train_s": train_s,
    }
    print(
        f"| {seed} | {row['return']:.1f} | {row['last']:.1f} | {row['worst']:.0f} | "
        f"{row['random']:.0f} | {row['env_steps']} | {row['verify']} | {train_s:.0f} |",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="a setting of every run")
    options = parser.parse_args()
    settings = [word for each in options.set for word in ("--set", each)]
    print("| seed | best | last | worst episode | random | env steps | verify | train s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        seeds = range(options.first_seed, options.first_seed + options.seeds)
        rows = list(pool.map(lambda seed: learn(Path(folder), seed, settings), seeds))
    reached = sum(row["return"] >= TARGET for row in rows)
    mean = statistics.mean(row["return"] for row in rows)
    print(f"\n{reached} of {len(rows)} seeds reach {TARGET:.0f}; mean {mean:.1f}")
    if reached < 0.9 * len(rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
