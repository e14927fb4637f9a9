"""The published algorithms at a laptop's sizes, next to the published curves.

    make prove                                  (all of it: about 20 hours of a core)
    make prove ONLY=tdmpc2-cup-catch BUDGET=90  (one study, 90 minutes of it)

A run is a project that the product's commands train, on one thread. When it has ended, its
manifest, evaluations and metrics become part of docs/evidence/<study>/, which `worldflux verify
--evidence` checks again; a run that is there is not repeated. What the budget interrupts is saved,
and continued from --out by the next call. The table is of everything that docs/evidence/ holds.

Negative controls must not be called proven: agents that were never trained, agents that were
trained on shuffled actions, and every agent of a study as it was at half of its updates.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

EVIDENCE = Path(__file__).resolve().parents[2] / "docs" / "evidence"
FRAMES, ACTION_REPEAT, WARMUP = 100_000, 2, 2000
NEGATIVE, HALF = "negative-", "negative-half-"
SHUFFLED = (
    "import tampering, worldflux.cli.app as app; tampering.shuffle_sampled_actions(); app.main()"
)
LOOK_S = 5  # seconds between looks at how far a run is
COLUMNS = "study | seed | frames | return | policy alone | CPU minutes | published"


@dataclass(frozen=True)
class Study:
    """Runs of one configuration: what `init` is told, what is set besides, and the seeds."""

    name: str
    environment: str
    model: str
    seeds: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    shuffled: bool = False

    @property
    def halved(self) -> bool:
        """Whether its agents are also kept as they were at half of their updates.

        DreamerV3's published curves begin before that: half of a run is compared at its own frames.
        """
        own = self.name.startswith((NEGATIVE, "dreamerv3"))
        return "training.total_steps" in self.settings and not own


def control(model: str, task: str, *seeds: int, steps_per_update: int = 2) -> Study:
    """100,000 frames of a DeepMind Control task from state, for an agent that plans.

    Pretraining is one update for each random step, so the updates of acting are the rest: one for
    every other step, or each, as published. Four environments are planned together.
    """
    env_steps = FRAMES // ACTION_REPEAT
    updates = WARMUP + (env_steps - WARMUP) // steps_per_update
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
    if steps_per_update == 1:
        settings["online_collection.collect_steps_per_update"] = 1
        name += "-every-step"
    return Study(name, f"dm_control/{task}-v0", model, seeds, settings)


def untrained(task: str) -> Study:
    """An agent that plays all frames with the weights that it began with, and plans as little as
    it can; evaluated once, at its end."""
    updates = 1 + (FRAMES // ACTION_REPEAT - WARMUP) // 100
    changes = {
        "architecture.iterations": 1,
        "architecture.num_samples": 16,
        "architecture.num_elites": 8,
        "training.learning_rate": 1e-12,
        "training.batch_size": 2,
        "training.total_steps": updates,
        "training.eval_interval": updates,
        "online_collection.pretrain": False,
        "online_collection.collect_steps_per_update": 100,
    }
    study = control("tdmpc2:laptop", task, 1, 2, 3)
    name = f"{NEGATIVE}untrained-{task}"
    return replace(study, name=name, settings={**study.settings, **changes})


def shuffled(task: str) -> Study:
    """An agent that learns a quarter as often, from actions that belong to other steps."""
    updates = WARMUP + (FRAMES // ACTION_REPEAT - WARMUP) // 8
    changes = {
        "training.total_steps": updates,
        "training.eval_interval": updates // 5,
        "online_collection.collect_steps_per_update": 8,
    }
    study = control("tdmpc2:laptop", task, 1, 2, 3)
    name, settings = f"{NEGATIVE}shuffled-{task}", {**study.settings, **changes}
    return replace(study, name=name, settings=settings, shuffled=True)


def solved(name: str, environment: str, stop_at_return: float) -> Study:
    """What `init` writes, until an evaluation every 5,000 updates reaches a return."""
    settings = {"evaluation.stop_at_return": stop_at_return, "training.eval_interval": 5000}
    return Study(name, environment, "tdmpc2:laptop", (1, 2, 3), settings)


def dreamer(task: str, *seeds: int) -> Study:
    """100,000 frames, and an update for every fourth step: half of the published replay ratio."""
    updates = (FRAMES // ACTION_REPEAT - 1024) // 4
    settings = {
        "training.total_steps": updates,
        "training.eval_interval": updates // 5,
        "training.save_interval": updates // 5,
        "data.buffer_capacity": FRAMES // ACTION_REPEAT + 1000,
        "online_collection.collect_steps_per_update": 4,
    }
    return Study(f"dreamerv3-{task}", f"dm_control/{task}-v0", "dreamerv3:laptop", seeds, settings)


STUDIES = (
    control("tdmpc2:laptop", "cup-catch", 1, 2, 3, 4, 5),  # three seeds left both of these open
    control("tdmpc2:laptop", "cartpole-swingup", 1, 2, 3, 4, 5),
    # Half of the published updates did not prove it in five seeds: 0.943 of the published gain. All
    # of them gave 1.014 in three, and left it open by 0.004.
    control("tdmpc2:laptop", "cartpole-swingup", 1, 2, 3, 4, 5, steps_per_update=1),
    control("tdmpc2:laptop", "cartpole-balance", 1, 2, 3),
    control("tdmpc2:laptop", "walker-stand", 1, 2, 3),
    control("bmpc:laptop", "cup-catch", 1, 2, 3),
    control("bmpc:laptop", "walker-stand", 1, 2),
    solved("gym-inverted-pendulum", "InvertedPendulum-v5", 950.0),
    solved("gym-hopper", "Hopper-v5", 1000.0),
    dreamer("cartpole-balance", 1, 2),
    *map(untrained, ("cup-catch", "cartpole-swingup", "cartpole-balance", "walker-stand")),
    *map(shuffled, ("cup-catch", "cartpole-swingup")),
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
    given = []
    for name, value in {**settings, **study.settings}.items():
        given += ["--set", f"{name}={json.dumps(value)}"]
    while time.monotonic() < deadline:
        halving = study.halved and not half_of(project).is_dir()
        enough = study.settings["training.total_steps"] // 2 if halving else None
        status = train_until(project, given, study.shuffled, deadline, enough)
        if status == "completed":
            return outputs
        if status == "failed":
            raise SystemExit(f"{project} failed: see {project / 'log'}")
        if enough is not None and updates_of(outputs) >= enough:
            shutil.copytree(outputs, half_of(project))
    return None


def train_until(
    project: Path, given: list[str], shuffle: bool, deadline: float, enough: int | None
) -> str:
    """Train until the end, the deadline or so many updates; what the manifest then says."""
    outputs = project / "outputs"
    resume = ["--resume"] if (outputs / "checkpoints").is_dir() else []
    program = ["-c", SHUFFLED] if shuffle else ["-m", "worldflux"]
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}  # for tampering.py
    with (project / "log").open("a") as log:
        command = [sys.executable, *program, "train", *resume, *given]
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            time.sleep(LOOK_S)
            far = enough is not None and updates_of(outputs) >= enough
            if far or time.monotonic() > deadline:
                process.send_signal(signal.SIGTERM)  # saves a checkpoint
                process.wait()
    file = outputs / "run_manifest.json"
    return json.loads(file.read_text())["status"] if file.is_file() else "failed"


def updates_of(outputs: Path) -> int:
    """How many updates a run has logged."""
    file = outputs / "metrics.jsonl"
    rows = file.read_text().splitlines() if file.is_file() else []
    return int(json.loads(rows[-1])["step"]) if rows else 0


def half_of(project: Path) -> Path:
    return project.with_name(f"{project.name}-half")


def keep(name: str, outputs: Path) -> None:
    """Add a run to the evidence of that name, and judge all of its runs again."""
    folder = EVIDENCE / name
    with tempfile.TemporaryDirectory() as temporary:
        new = Path(temporary) / name
        targets = [outputs, *([folder / "inputs"] if folder.is_dir() else [])]
        named = [part for target in targets for part in ("--target", str(target.absolute()))]
        given = ("--mode", "proof", "--evidence", str(new), "--no-weights")
        worldflux(Path(temporary), "verify", *named, *given, allowed=(0, 3))
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(new, folder)


def runs_of(name: str) -> list[Path]:
    """The runs of that name that docs/evidence/ holds."""
    return sorted((EVIDENCE / name / "inputs").glob("*"))


def seed_of(run: Path) -> int:
    seed: int = json.loads((run / "run_manifest.json").read_text())["seeds"]["run"]
    return seed


def verdict_of(name: str) -> dict[str, Any]:
    """What `worldflux verify --mode proof` said of a study."""
    verdict: dict[str, Any] = json.loads((EVIDENCE / name / "evidence.json").read_text())["verdict"]
    return verdict


def length_of(verdict: dict[str, Any]) -> dict[str, Any]:
    """The frames at which the runs were compared, and the published return there; may be empty."""
    found = [check["numbers"] for check in verdict["checks"] if check["name"].startswith("length")]
    return found[0] if found else {}


def points_of(run: Path) -> list[tuple[int, float]]:
    """Frames and return of each evaluation."""
    rows = [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]
    environment = json.loads((run / "run_manifest.json").read_text())["environment"]
    repeat = environment.get("frames_per_env_step", 1)
    return [(row["env_steps"] * repeat, row["return_mean"]) for row in rows]


def draw(picture: Path) -> None:
    """A panel for each study: every run's evaluations, and the published return where it ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names = [study.name for study in STUDIES if runs_of(study.name)]
    columns, rows = 3, -(-len(names) // 3)
    figure = Figure(figsize=(4 * columns, 2.7 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(rows, columns, place)
        for run in sorted(runs_of(name), key=seed_of):
            axes.plot(*zip(*points_of(run), strict=True), marker=".", label=f"seed {seed_of(run)}")
        there = length_of(verdict_of(name))
        if "published_mean" in there:
            mean, deviation = there["published_mean"], there["published_sd"]
            style = {"fmt": "ks", "capsize": 4, "label": "published"}
            axes.errorbar(there["frames"], mean, deviation, **style)
            axes.axhline(there["random_return_mean"], color="grey", linestyle="--")
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("environment frames")
        axes.set_ylabel("return")
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=6)
    figure.savefig(picture, dpi=80)


def table() -> None:
    """A row for each run, and what `worldflux verify --mode proof` says of each study."""
    print(f"| {COLUMNS} |\n|{'---|' * 7}")
    words = []
    half = [HALF + study.name for study in STUDIES if study.halved]
    for name in [*(study.name for study in STUDIES), *half]:
        runs = runs_of(name)
        if not runs:
            continue
        evidence = verdict_of(name)
        length = length_of(evidence)
        published = "-"
        if "published_mean" in length:
            published = "{published_mean:.0f} ± {published_sd:.0f}".format(**length)
        for run in runs:
            last = json.loads((run / "eval.jsonl").read_text().splitlines()[-1])
            manifest = json.loads((run / "run_manifest.json").read_text())
            frames = points_of(run)[-1][0]
            alone = last.get("return_mean_prior")
            cells = [
                name,
                str(seed_of(run)),
                f"{frames:,.0f}",
                f"{last['return_mean']:.0f}",
                "-" if alone is None else f"{alone:.0f}",
                f"{manifest['cpu_s'] / 60:.0f}",
                published,
            ]
            print(f"| {' | '.join(cells)} |")
        margin = [c["detail"] for c in evidence["checks"] if c["name"].startswith("no worse")]
        words.append(f"{name}: {evidence['verdict']}{': ' + margin[0] if margin else ''}")
    print("\n" + "\n".join(words))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=[study.name for study in STUDIES])
    parser.add_argument("--budget-minutes", type=float, default=1e6)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("prove"))
    parser.add_argument("--picture", type=Path, help="draw what docs/evidence/ holds there")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.budget_minutes
    todo = [
        (study, seed)
        for study in STUDIES
        if study.name in (options.only or [study.name])
        for seed in study.seeds
        if seed not in {seed_of(run) for run in runs_of(study.name)}
    ]

    with ThreadPoolExecutor(options.jobs) as pool:
        ended = pool.map(lambda job: (job, train(options.out, *job, deadline)), todo)
        for (study, _), outputs in ended:
            if outputs is None:
                continue
            if study.halved:
                keep(HALF + study.name, half_of(outputs.parent))
            keep(study.name, outputs)
    table()
    if options.picture is not None:
        draw(options.picture)


if __name__ == "__main__":
    main()
