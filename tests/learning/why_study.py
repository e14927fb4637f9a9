"""How often `worldflux why` names an injected fault first, and how often it accuses a healthy run.

    make why-study    (164 faulty runs and 60 healthy ones; one whose row is there is not repeated)

Each run is small (about six seconds of a core): its faults, if any, are in the environment
(why_faults.py) or in one setting. Thresholds of worldflux/diagnosis/table.py were set on the
`calibration` set alone: seeds from 100 on, and partly other environments. The table is about the
`report` set: seeds 1 to 99. A run that is too short is no fault, and saying so no false alarm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
HEALTHY = "healthy"
# Fault -> causes that are right; those that are neither wrong nor an accusation.
RIGHT = {
    "reward": {"reward-scale"},
    "actions": {"actions-ignored"},
    "limit as death": {"time-limit-as-death"},
    "no death": {"death-unseen"},
    "scale": {"observation-scale"},
    "pixels": {"observation-constant"},
    "rate x30": {"rate-high"},
    "rate /100": {"rate-low"},
    "few updates": {"updates-few"},
    "4 samples": {"planner-small", "planner-worse"},
    "seed": {"seed-ignored"},
    "replay 500": {"replay-small"},
}
NO_ACCUSATION = {"too-short", "unlucky-seed"}

TDMPC2 = {
    "model": "tdmpc2:ci",
    "architecture.num_samples": 64,
    "architecture.num_elites": 16,
    "architecture.num_pi_trajs": 8,
    "architecture.iterations": 2,
    "architecture.horizon": 3,
    "architecture.discount_heuristic": True,
    "training.batch_size": 32,
    "training.total_steps": 200,
    "training.on_unfit_data": "warn",
    "online_collection.pretrain": False,
    "online_collection.collect_steps_per_update": 1,
    "online_collection.warmup_transitions": 1000,
}
DREAMER = {
    "model": "dreamer:ci",
    "architecture.train_ratio": 64,
    "training.batch_size": 6,
    "training.sequence_length": 12,
    "architecture.cnn_depth": 4,
    "architecture.imagination_horizon": 8,
    "training.total_steps": 80,
    "online_collection.collect_steps_per_update": 4,
    "online_collection.warmup_transitions": 800,
}
COMMON = {
    "training.log_interval": 20,
    "training.save_interval": 100_000,
    "gameplay.enabled": False,
    "evaluation.episodes": 4,
    "evaluation.max_episode_steps": 100,
    "inference.horizon": 5,
    "data.buffer_capacity": 20_000,
    "training.device": '"cpu"',
}
FAMILIES = {"tdmpc2": TDMPC2, "dreamer": DREAMER}
# The learning rate of both presets is that of their configuration.
LIMITED = ("Pendulum-v1", "reach")  # ended by their time limit, several times in such a run
RATES = {"tdmpc2": 3e-4, "dreamer": 1e-4}


def settings_of(fault: str, family: str) -> dict[str, Any]:
    """What a fault sets, if it is one of the settings."""
    rate = RATES[family]
    return {
        "limit as death": {"architecture.episodic": True} if family == "tdmpc2" else {},
        "rate x30": {"training.learning_rate": 30 * rate},
        "rate /100": {"training.learning_rate": rate / 100},
        "few updates": {
            "online_collection.collect_steps_per_update": 50,
            "training.total_steps": 20,
        },
        "4 samples": {"architecture.num_samples": 4, "architecture.num_elites": 4},
        "replay 500": {"data.buffer_capacity": 500},
    }.get(fault, {})


@dataclass(frozen=True)
class Cell:
    """A fault in an environment, learned by a family."""

    fault: str
    family: str
    env: str


def cells(vectors: dict[str, tuple[str, ...]], pixels: str, deaths: dict[str, str]) -> list[Cell]:
    """Every fault where it applies, and healthy runs of each environment."""
    found = []
    for family, envs in vectors.items():
        for env in (*envs, *({deaths[family]} - {*envs})):
            found.append(Cell(HEALTHY, family, env))
        for fault in ("reward", "actions", "scale", "seed", "few updates", "replay 500"):
            found += [Cell(fault, family, env) for env in envs]
        for fault in ("rate x30", "rate /100"):
            found += [Cell(fault, family, env) for env in envs]
        found.append(Cell("no death", family, deaths[family]))
        found += [Cell("limit as death", family, env) for env in envs if env in LIMITED]
    found += [Cell("4 samples", "tdmpc2", env) for env in vectors["tdmpc2"]]
    found += [Cell(fault, "dreamer", pixels) for fault in (HEALTHY, "pixels", "actions")]
    return found


SETS = {
    "report": (
        range(1, 100),  # seed 0 was looked at while the checks were written
        cells(
            {"tdmpc2": ("Pendulum-v1", "reach"), "dreamer": ("CartPole-v1", "reach")},
            "catch",
            {"tdmpc2": "balance", "dreamer": "CartPole-v1"},
        ),
    ),
    "calibration": (
        range(100, 200),
        cells(
            {"tdmpc2": ("Pendulum-v1", "MountainCarContinuous-v0"), "dreamer": ("Pendulum-v1",)},
            "catch",
            {"tdmpc2": "InvertedPendulum-v5", "dreamer": "InvertedPendulum-v5"},
        ),
    ),
}
TOML = 'project_name = "study"\nenvironment = "{env}"\nmodel = "{model}"\n'
DATASET = """import sys
sys.path.insert(0, {here!r})
from why_faults import make
def make_env(render_mode=None):
    return make({env!r}, {fault!r})
"""


def one(cell: Cell, seed: int, root: Path) -> dict[str, Any]:
    """Train one run and ask why; called in a process of its own."""
    from worldflux import clock
    from worldflux.cli.why import _published_steps
    from worldflux.project import recorder
    from worldflux.project.diagnose import why_run
    from worldflux.project.run import train_project

    clock.TIMED_S = 0.0
    recorder.can_imagine = lambda model: False  # pictures take longer than all else here
    recorder.plot_returns = lambda rows, path, title="": path
    chosen = {**FAMILIES[cell.family], **COMMON, **settings_of(cell.fault, cell.family)}
    if cell.family == "tdmpc2" and cell.env in ("balance", "InvertedPendulum-v5"):
        chosen["architecture.episodic"] = True
    model = chosen.pop("model")
    (root / "worldflux.toml").write_text(TOML.format(env=cell.env, model=model))
    (root / "dataset.py").write_text(DATASET.format(here=str(HERE), env=cell.env, fault=cell.fault))
    chosen["training.eval_interval"] = max(1, int(chosen["training.total_steps"]) // 2)
    chosen["training.seed"] = seed
    overrides = [f"{key}={str(value).lower()}" for key, value in chosen.items()]
    began, error = time.process_time(), None
    try:
        train_project(root, overrides=overrides, say=lambda line: None)
    except Exception as problem:
        error = f"{type(problem).__name__}: {problem}"
    trained = time.process_time()
    found = why_run(root / "outputs", published=_published_steps)
    manifest = json.loads((root / "outputs" / "run_manifest.json").read_text())
    return {
        "train_s": trained - began,
        "why_s": time.process_time() - trained,
        "error": error,
        **found.to_dict(),
        "early": [entry["cause"] for entry in manifest.get("diagnosis", [])],
    }


def run_one(cell: Cell, seed: int, keep: Path | None) -> dict[str, Any]:
    """The row of one run."""
    with tempfile.TemporaryDirectory(prefix="why-") as folder:
        given = json.dumps([cell.fault, cell.family, cell.env, seed, folder])
        done = subprocess.run(
            [sys.executable, __file__, "--one", given], capture_output=True, text=True, check=False
        )
        row: dict[str, Any] = {**vars(cell), "seed": seed}
        if done.returncode:
            return {**row, "broken": done.stderr[-2000:]}
        row |= json.loads(done.stdout.splitlines()[-1])
        if keep is not None and not is_right(row):
            name = f"{cell.fault}-{cell.family}-{cell.env}-{seed}".replace(" ", "-")
            shutil.copytree(folder, keep / name.replace("/", ""), dirs_exist_ok=True)
    return row


def is_right(row: dict[str, Any]) -> bool:
    """The injected cause first; nothing that accuses a healthy run."""
    causes = [finding["cause"] for finding in row.get("findings", [])]
    if row["fault"] == HEALTHY:
        return "broken" not in row and not set(causes) - NO_ACCUSATION
    return bool(causes) and causes[0] in RIGHT[row["fault"]]


def table(rows: list[dict[str, Any]]) -> str:
    """The counts of the report set, and of what was said instead."""
    lines = ["| fault | family | runs | right first | in the list | else first |", "|---" * 6 + "|"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[row["fault"], row["family"]].append(row)
    for (fault, family), some in sorted(groups.items()):
        named = [[finding["cause"] for finding in row.get("findings", [])] for row in some]
        right = sum(map(is_right, some))
        listed = sum(bool(RIGHT.get(fault, set()) & set(causes)) for causes in named)
        pairs = zip(some, named, strict=True)
        wrong = sorted(
            {
                f"{r['env']}: {c[0] if c else 'broken' if 'broken' in r else 'nothing'}"
                for r, c in pairs
                if not is_right(r)
            }
        )
        shown = "-" if fault == HEALTHY else listed
        lines.append(
            f"| {fault} | {family} | {len(some)} | {right} | {shown} | {', '.join(wrong)} |"
        )
    faulty = [row for row in rows if row["fault"] != HEALTHY]
    fine = [row for row in rows if row["fault"] == HEALTHY]
    alarms = sum(not is_right(row) for row in fine)
    lines.append(
        f"\nright cause first: {sum(map(is_right, faulty))} of {len(faulty)} faulty runs; "
        f"false alarms: {alarms} of {len(fine)} healthy runs"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", choices=SETS, default="report", dest="name")
    parser.add_argument("--out", type=Path, default=Path("why-study.jsonl"))
    parser.add_argument("--seeds", type=int, default=4, help="runs of each fault and environment")
    parser.add_argument("--healthy-seeds", type=int, default=10)
    parser.add_argument("--budget-minutes", type=float, default=None)
    parser.add_argument("--only", default=None, help="one fault, or part of FAULT/FAMILY/ENV")
    parser.add_argument("--keep", type=Path, default=None, help="keep projects of wrong answers")
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        fault, family, env, seed, folder = json.loads(options.one)
        print(json.dumps(one(Cell(fault, family, env), seed, Path(folder))))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = []
    if options.out.is_file():
        rows = [json.loads(line) for line in options.out.read_text().splitlines()]
    done = {(r["fault"], r["family"], r["env"], r["seed"]) for r in rows}
    seeds, chosen = SETS[options.name]
    began = time.monotonic()
    for number in range(max(options.seeds, options.healthy_seeds)):  # every cell before a next seed
        for cell in chosen:
            most = options.healthy_seeds if cell.fault == HEALTHY else options.seeds
            key = (cell.fault, cell.family, cell.env, seeds[number])
            if number >= most or key in done or (options.only or "") not in "/".join(key[:3]):
                continue
            spent = (time.monotonic() - began) / 60
            if options.budget_minutes is not None and spent > options.budget_minutes:
                break
            row = run_one(cell, seeds[number], options.keep)
            rows.append(row)
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            causes = [(f["cause"], f["score"]) for f in row.get("findings", [])]
            costs = f"{row.get('train_s', 0):.0f} + {row.get('why_s', 0):.0f} s"
            verdict = "right" if is_right(row) else "WRONG"
            print("/".join(key[:3]), key[3], verdict, causes, costs, flush=True)
    print(table([row for row in rows if row["seed"] in seeds]))


if __name__ == "__main__":
    main()
