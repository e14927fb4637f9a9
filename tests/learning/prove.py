"""The published algorithms at a laptop's sizes, next to the published curves.

    make prove                                  (all of it: about 20 hours of one core)
    make prove ONLY=tdmpc2-cup-catch BUDGET=90  (one study, 90 minutes of it)

A run is a project that the product's commands train, on one thread. When it has ended, its
manifest, evaluations and metrics become part of docs/evidence/<study>/, which `worldflux verify
--evidence` checks again; a run that is there is not repeated. What the budget interrupts is saved,
and continued from --out by the next call. The table is of everything that docs/evidence/ holds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVIDENCE = Path(__file__).resolve().parents[2] / "docs" / "evidence"
FRAMES, ACTION_REPEAT, WARMUP = 100_000, 2, 2000
COLUMNS = "study | seed | frames | return | policy alone | CPU minutes | published"


@dataclass(frozen=True)
class Study:
    """Runs of one configuration: what `init` is told, what is set besides, and the seeds."""

    name: str
    environment: str
    model: str
    seeds: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)


def control(model: str, task: str, *seeds: int) -> Study:
    """100,000 frames of a DeepMind Control task from state, for an agent that plans.

    Pretraining is one update for each random step, so the updates of acting are the rest: one for
    every other step. Four environments are planned together.
    """
    env_steps = FRAMES // ACTION_REPEAT
    updates = WARMUP + (env_steps - WARMUP) // 2
    settings = {
        "training.total_steps": updates,
        "training.eval_interval": updates // 5,
        "training.save_interval": updates // 5,
        "training.log_interval": 200,
        "data.buffer_capacity": env_steps + 1000,
        "online_collection.num_envs": 4,
        "online_collection.pretrain": True,
        "online_collection.warmup_transitions": WARMUP,
        "evaluation.policy": "plan",
    }
    name = f"{model.partition(':')[0]}-{task}"
    return Study(name, f"dm_control/{task}-v0", model, seeds, settings)


STUDIES = (
    control("tdmpc2:laptop", "cup-catch", 1, 2, 3),
    control("bmpc:laptop", "cup-catch", 1, 2, 3),
    control("tdmpc2:laptop", "cartpole-swingup", 1, 2, 3),
    control("bmpc:laptop", "cartpole-swingup", 1, 2),
    control("tdmpc2:laptop", "cartpole-balance", 1, 2, 3),
    control("tdmpc2:laptop", "walker-stand", 1, 2, 3),
    Study("gym-inverted-pendulum", "InvertedPendulum-v5", "tdmpc2:laptop", (1, 2, 3)),
    Study("gym-hopper", "Hopper-v5", "tdmpc2:laptop", (1, 2, 3)),
    Study(
        "dreamerv3-cartpole-balance", "dm_control/cartpole-balance-v0", "dreamerv3:laptop", (1, 2)
    ),
)


def worldflux(folder: Path, *arguments: str, allowed: tuple[int, ...] = (0,)) -> str:
    """What a command prints; the study ends, with its words, where it should not fail."""
    command = [sys.executable, "-m", "worldflux", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode not in allowed:
        raise SystemExit(f"worldflux {' '.join(arguments)} failed in {folder}:\n{done.stderr}")
    return done.stdout


def train(out: Path, study: Study, seed: int, deadline: float) -> Path | None:
    """Train a run, or continue it; its folder, or None where the deadline came first."""
    project = out / f"{study.name}-seed{seed}"
    outputs = project / "outputs"
    if not project.is_dir():
        chosen = ("--env", study.environment, "--model", study.model)
        worldflux(out, "init", project.name, "--yes", *chosen)
    settings = {"training.seed": seed, "training.device": "cpu", "gameplay.enabled": False}
    given = ["--resume"] if (outputs / "checkpoints").is_dir() else []
    for name, value in {**settings, **study.settings}.items():
        given += ["--set", f"{name}={json.dumps(value)}"]
    with (project / "log").open("a") as log:
        command = [sys.executable, "-m", "worldflux", "train", *given]
        process = subprocess.Popen(command, cwd=project, stdout=log, stderr=log)
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # saves a checkpoint
            process.wait()
    status = json.loads((outputs / "run_manifest.json").read_text())["status"]
    if status == "completed":
        return outputs
    if status == "failed":
        raise SystemExit(f"{project} failed: see {project / 'log'}")
    return None


def keep(study: Study, outputs: Path) -> None:
    """Add a run to the study's evidence, and judge all of its runs again."""
    folder = EVIDENCE / study.name
    with tempfile.TemporaryDirectory() as temporary:
        new = Path(temporary) / study.name
        targets = [outputs, *([folder / "inputs"] if folder.is_dir() else [])]
        named = [part for target in targets for part in ("--target", str(target.absolute()))]
        given = ("--mode", "proof", "--evidence", str(new), "--no-weights")
        worldflux(Path(temporary), "verify", *named, *given, allowed=(0, 3))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(new, folder)


def runs_of(study: Study) -> Iterator[Path]:
    """The study's runs that docs/evidence/ holds."""
    yield from sorted((EVIDENCE / study.name / "inputs").glob("*"))


def seed_of(run: Path) -> int:
    seed: int = json.loads((run / "run_manifest.json").read_text())["seeds"]["run"]
    return seed


def table() -> None:
    """A row for each run, and what `worldflux verify --mode proof` says of each study."""
    print(f"| {COLUMNS} |\n|{'---|' * 7}")
    words = []
    for study in STUDIES:
        runs = list(runs_of(study))
        if not runs:
            continue
        evidence = json.loads((EVIDENCE / study.name / "evidence.json").read_text())["verdict"]
        lengths = [c["numbers"] for c in evidence["checks"] if c["name"].startswith("length")]
        published = "-"
        if lengths and "published_mean" in lengths[0]:
            published = "{published_mean:.0f} ± {published_sd:.0f}".format(**lengths[0])
        for run in runs:
            last = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
            manifest = json.loads((run / "run_manifest.json").read_text())
            frames = last["env_steps"] * manifest["environment"].get("frames_per_env_step", 1)
            alone = last.get("return_mean_prior")
            cells = [
                study.name,
                str(seed_of(run)),
                f"{frames:,.0f}",
                f"{last['return_mean']:.0f}",
                "-" if alone is None else f"{alone:.0f}",
                f"{manifest['cpu_s'] / 60:.0f}",
                published,
            ]
            print(f"| {' | '.join(cells)} |")
        margin = [c["detail"] for c in evidence["checks"] if c["name"].startswith("no worse")]
        words.append(f"{study.name}: {evidence['verdict']}{': ' + margin[0] if margin else ''}")
    print("\n" + "\n".join(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[study.name for study in STUDIES])
    parser.add_argument("--budget-minutes", type=float, default=1e6)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("prove"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.budget_minutes
    todo = [
        (study, seed)
        for study in STUDIES
        if study.name in (options.only or [study.name])
        for seed in study.seeds
        if seed not in {seed_of(run) for run in runs_of(study)}
    ]

    with ThreadPoolExecutor(options.jobs) as pool:
        ended = pool.map(lambda job: (job, train(options.out, *job, deadline)), todo)
        for (study, _), outputs in ended:
            if outputs is not None:
                keep(study, outputs)
    table()


if __name__ == "__main__":
    main()
