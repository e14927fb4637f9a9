"""What `worldflux trust` promises, counted over short runs.

    make trust-study    (24 runs, and 20 on shuffled actions; about 90 minutes of a core)

Of each run: train, `worldflux trust` with 100 episodes, then 100 fresh episodes for the coverage
of its intervals, and 20 episodes of each changed environment (changed_envs.py) for the AUROC of its
signal: how well it tells their steps from those of 20 fresh known ones. Models that are trained on
shuffled actions must be trusted for 0 steps. A run's row is a line of --out DIR/rows.jsonl as soon
as it is done, and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
EPISODES, CHANGED_EPISODES, STEPS = 100, 20, 128
TOLD = 0.9  # AUROC
FRESH, CHANGED = 7_000_000, 8_000_000  # seeds that nothing else resets with
Row = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A project of `worldflux init`, settings that make it short, and changed environments."""

    environment: str
    runs: int
    settings: Sequence[str]
    changed: Sequence[str] = ()
    shuffled: bool = False


_SHORT = ("gameplay.enabled=false", "evaluation.episodes=1", "training.save_interval=100000")
_PENDULUM = (
    *_SHORT,
    "training.total_steps=3200",
    "training.eval_interval=3200",
    "online_collection.warmup_transitions=1500",
    "evaluation.policy=prior",  # planning 12,000 steps would take longer than learning
)
_INVERTED = (
    *_SHORT,
    "model=tdmpc2:laptop",
    "training.total_steps=1600",
    "training.eval_interval=1600",
    "online_collection.warmup_transitions=1500",
    "evaluation.policy=prior",
)
_CART_POLE = (*_SHORT, "training.total_steps=250", "training.eval_interval=250")
_CATCH = (
    *_SHORT,
    "training.total_steps=500",
    "training.eval_interval=500",
    "online_collection.warmup_transitions=1000",
)
UNNAMED = {"LongPole-v0"}  # no change of gravity, mass or colour: it does not count
KINDS = {
    "pendulum": Kind("Pendulum-v1", 8, _PENDULUM, ("StrongGravity-v0", "HeavyPendulum-v0")),
    "cartpole": Kind(
        "CartPole-v1", 6, _CART_POLE, ("LongPole-v0", "StrongPull-v0", "HeavyPole-v0")
    ),
    "catch": Kind("worldflux/Catch-v0", 6, _CATCH, ("OtherColours-v0",)),
    "inverted": Kind("InvertedPendulum-v5", 4, _INVERTED, ("DoubleGravity-v0", "DoubleMass-v0")),
    "shuffled": Kind("Pendulum-v1", 20, _PENDULUM, shuffled=True),
}


def measured(name: str, seed: int, root: Path) -> Row:
    """One run from init to its row."""
    began = time.process_time()
    folder = trained(name, seed, root)
    train_s = time.process_time() - began
    row = {"kind": name, "seed": seed, **judged(folder, KINDS[name].changed, seed)}
    seconds = {"train_cpu_s": round(train_s), "cpu_s": round(time.process_time() - began)}
    return {**row, **seconds}


def trained(name: str, seed: int, root: Path) -> Path:
    """A new project's run."""
    from tampering import shuffle_sampled_actions

    from worldflux.project.run import train_project

    kind, project = KINDS[name], root / f"{name}-{seed}"
    if not project.exists():
        command = ["-m", "worldflux", "init", project.name, "--yes", "--env", kind.environment]
        subprocess.run([sys.executable, *command], cwd=root, check=True, capture_output=True)
    manifest = project / "outputs" / "run_manifest.json"
    if manifest.is_file() and json.loads(manifest.read_text())["status"] == "completed":
        return manifest.parent
    if kind.shuffled:
        shuffle_sampled_actions()
    settings = [*kind.settings, f"training.seed={seed}"]
    return train_project(project, overrides=settings, say=lambda line: None).folder


def judged(folder: Path, changed: Sequence[str], seed: int) -> Row:
    """A run's calibration, its coverage of fresh episodes, and its AUROC on changed ones."""
    from worldflux.evaluation.open_loop import Scales
    from worldflux.project.open_run import open_run
    from worldflux.verify.trust import MODEL, episode_errors, trust_run

    found = trust_run(folder, episodes=EPISODES, checkpoint="last").calibration
    run = open_run(folder, "last")
    fresh = played(run, EPISODES, FRESH)
    units = {unit: value.numpy() for unit, value in found.units.items()}
    steps = len(next(iter(found.kinds.values())).radius)
    errors = episode_errors(run.model, fresh, steps, Scales({}, units), seed)
    known = surprises(run, found, fresh[:CHANGED_EPISODES])
    told = {}
    for env_id in changed:
        elsewhere = {**run.manifest, "environment": {"id": f"changed_envs:{env_id}", "kwargs": {}}}
        there = played(replace(run, manifest=elsewhere), CHANGED_EPISODES, CHANGED)
        told[env_id] = auroc(surprises(run, found, there), known)
    return {
        "horizon": found.horizon,
        "horizons": {name: kind.horizon for name, kind in found.kinds.items()},
        "reasons": {name: kind.reason for name, kind in found.kinds.items()},
        "coverage": {
            name: float(np.nanmean(_coverage(errors[name][:, MODEL], np.array(kind.radius))))
            for name, kind in found.kinds.items()
        },
        "auroc": told,
    }


def played(run: Any, episodes: int, seed: int) -> list[Any]:
    """The beginnings of episodes of the run's agent."""
    from worldflux.progress import SILENT

    envs = run.environments(episodes)
    try:
        kept = {"record_episodes": episodes, "record_steps": STEPS}
        return list(run.play(envs, episodes, seed, SILENT, **kept).recorded)
    finally:
        envs.close()


def surprises(run: Any, found: Any, episodes: Sequence[Any]) -> np.ndarray:
    """The signal at every step of episodes, without their first observations."""
    from worldflux.evaluation.trust import steps_of, surprise, windowed

    scores = [windowed(found.signal(*steps_of(run.model, e)))[1:] for e in episodes]
    return surprise(np.concatenate(scores), found.ordinary)


def _coverage(errors: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Coverage `[E, H]` of errors `[E, H, W]`: every episode and horizon counts alike."""
    present = np.isfinite(errors)
    inside = (errors <= radius[None, :, None]) & present
    with np.errstate(invalid="ignore"):
        shares: np.ndarray = inside.sum(-1) / present.sum(-1)
    return shares


def auroc(positive: np.ndarray, negative: np.ndarray) -> float:
    """Probability that a positive is above a negative, a tie counting half."""
    both = np.concatenate([negative, positive])
    _, place = np.unique(both, return_inverse=True)
    counts = np.bincount(place)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    wins = ranks[len(negative) :].sum() - len(positive) * (len(positive) + 1) / 2
    return float(wins / (len(positive) * len(negative)))


def rows_in(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("trust-study"))
    parser.add_argument("--one", nargs=2, metavar=("KIND", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    root = options.out.absolute()
    root.mkdir(parents=True, exist_ok=True)
    if options.one:
        print(json.dumps(measured(options.one[0], int(options.one[1]), root)))
        return
    file = root / "rows.jsonl"
    paths = [str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}  # for changed_envs.py
    for seed in range(max(kind.runs for kind in KINDS.values())):
        for kind in options.kinds:
            if seed >= KINDS[kind].runs or any(
                (row["kind"], row["seed"]) == (kind, seed) for row in rows_in(file)
            ):
                continue
            command = [sys.executable, __file__, "--out", str(root), "--one", kind, str(seed)]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{kind} {seed} failed:\n{done.stderr}")
            line = done.stdout.splitlines()[-1]
            with file.open("a") as rows:
                rows.write(line + "\n")
            print(line, flush=True)
    raise SystemExit(0 if summary(rows_in(file)) else 1)


def summary(rows: Sequence[Row]) -> bool:
    """Print what the rows say, and return whether it is what is promised."""
    known = [row for row in rows if not KINDS[row["kind"]].shuffled]
    covered = [share for row in known for share in row["coverage"].values()]
    shuffled = [row["horizon"] for row in rows if KINDS[row["kind"]].shuffled]
    print(f"coverage {np.mean(covered):.1%} over {len(known)} runs (promised 90 %, +- 2)")
    print(f"shuffled actions: {shuffled.count(0)} of {len(shuffled)} trusted for 0 steps")
    for name in KINDS:
        steps = [row["horizon"] for row in rows if row["kind"] == name]
        print(f"{name}: trusted for {sorted(steps)} steps")
    best = {}
    for name, kind in KINDS.items():
        for env_id in kind.changed:
            values = [row["auroc"][env_id] for row in rows if row["kind"] == name]
            if values:
                print(f"{name}, {env_id}: AUROC {np.mean(values):.3f} ({min(values):.3f} least)")
                if env_id not in UNNAMED:
                    best[name] = max(best.get(name, 0.0), float(np.mean(values)))
    told = [name for name, value in best.items() if value >= TOLD]
    print(f"gravity, mass or colour told at {TOLD} or more in: {', '.join(told)} (promised: three)")
    learned = [row["horizon"] > 0 for row in rows if row["kind"] == "pendulum"]
    print(f"pendulum: {sum(learned)} of {len(learned)} trusted at all")
    held = (
        2 * sum(learned) > len(learned)
        and abs(np.mean(covered) - 0.9) <= 0.02
        and shuffled.count(0) == len(shuffled)
    )
    return bool(held and len(told) >= 3)


if __name__ == "__main__":
    main()
