"""Acts as `worldflux train` for the processes that start it, in milliseconds and without torch.

Each of four evaluations is a row of eval.jsonl; a resumed run continues after the last of them.
The return is a function of training.learning_rate, the seed and the update. Seed 13 fails.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

UPDATES = (10, 20, 30, 40)


def manifest(seed: int, status: str, rows: list[dict], **more: object) -> dict:
    """A manifest with what other commands read of it."""
    last = rows[-1] if rows else None
    best = max(rows, key=lambda row: row["return_mean"], default=None)
    logging = {"name": None, "group": None, "tags": [], "notes": None}
    return {
        "schema_version": 1,
        "status": status,
        "project_name": "p",
        "model": "tdmpc2:ci",
        "environment": {"id": "Pendulum-v1"},
        "training_config": {"total_steps": UPDATES[-1], "seed": seed},
        "configuration": {"logging": logging},
        "config_hash": "0123456789abcdef",
        "seeds": {"run": seed},
        "global_step": last["step"] if last else 0,
        "env_steps": last["env_steps"] if last else 0,
        "final": last,
        "best": best,
        "random_return_mean": -1000.0,
        "wall_s": 1.5,
        **more,
    }


def evaluation(step: int, mean: float) -> dict:
    """A row of eval.jsonl."""
    return {
        "step": step,
        "env_steps": 2 * step,
        "return_mean": mean,
        "return_std": 1.0,
        "returns": [mean],
        "time": time.time(),
    }


def write_run(folder: Path, seed: int, status: str, rows: list[dict], **more: object) -> None:
    """A run folder with a checkpoint that nobody opens."""
    (folder / "checkpoints" / "step-000000010").mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    for name, content in (
        ("eval.jsonl", text),
        ("run_manifest.json", json.dumps(manifest(seed, status, rows, **more))),
    ):
        partial = folder / f".{name}.tmp"
        partial.write_text(content)
        os.replace(partial, folder / name)


def mean_return(rate: float, seed: int, step: int) -> float:
    """Best at a rate of 0.003, later updates are better; with a little noise."""
    noise = int(hashlib.sha256(f"{rate!r} {seed} {step}".encode()).hexdigest()[:6], 16) / 2**24
    return -abs(rate - 0.003) * 1e4 + step + noise


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output-dir", type=Path)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--set", action="append", default=[])
    arguments, _ = parser.parse_known_args()
    folder, seed = arguments.output_dir, arguments.seed
    chosen = dict(text.split("=", 1) for text in arguments.set)
    rate = float(chosen.get("training.learning_rate", 0.001))
    if seed == 13:
        print("error: this seed is unlucky", file=sys.stderr)
        return 1
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    file = folder / "eval.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
    for step in UPDATES[len(rows) :]:
        write_run(folder, seed, "running", rows)
        time.sleep(float(os.environ.get("FAKE_SECONDS", "0.02")))
        if stopped:
            write_run(folder, seed, "interrupted", rows)
            return 143
        rows.append(evaluation(step, mean_return(rate, seed, step)))
    write_run(folder, seed, "completed", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
