"""What worldflux costs on this machine: one table, and the same as JSON.

    make bench                                    (all of it: about 11 minutes, writes bench.json)
    python tests/benchmarks/bench.py --out FILE   (--only models|growth|...: a part of it)
    python tests/benchmarks/bench.py --show FILE  (the table of an earlier one)
    python tests/benchmarks/bench.py --show FILE --plot growth.png

Every model is measured in a process of its own, as a run would compute (`training.threads`), in
several rounds through all models; medians and the least and most of the rounds stand in the table.
Nothing else should be running. docs/performance.md holds the table of docs/bench.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from growth import draw, growth
from torch.utils.flop_counter import FlopCounterMode

from worldflux import create_world_model
from worldflux.core.learning import LearningOverrides, learned_count
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.spec import EnvironmentSpec
from worldflux.project.manifest import machine, software
from worldflux.project.provenance import git_state
from worldflux.run_log import read_rows
from worldflux.training import TrainingConfig
from worldflux.training.data import fill_with_noise
from worldflux.training.precision import seconds_of
from worldflux.training.threads import threads_of
from worldflux.training.update import Updater

VECTOR, IMAGE, ACTIONS = (24,), (3, 64, 64), 6
MODELS = (
    ("tdmpc2:laptop", VECTOR),
    ("tdmpc2:official_5m", VECTOR),
    ("bmpc:laptop", VECTOR),
    ("dreamerv3:laptop", VECTOR),
    ("dreamerv3:official_1m", VECTOR),
    ("dreamerv3:official_1m", IMAGE),
    ("r2dreamer:laptop", IMAGE),
)
# Environment, model, and how much shorter than `init` writes it.
RUNS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Pendulum-v1", "tdmpc2:ci", {}),
    ("CartPole-v1", "dreamerv3:official_1m", {"training.total_steps": 150}),
)
COMMANDS = (["--help"], ["init", "project-{round}", "--yes"], ["models", "list"])
ROUNDS = 3
REPLAY_ROWS, DRAWN = 200_000, (256, 4)


def of_model(
    name: str, shape: tuple[int, ...], environments: int = 1, **settings: Any
) -> dict[str, Any]:
    """Seconds of an update and of an action, and the share of what matrix products could do.

    Args:
        environments: how many are acted in at once.
        settings: of [training], where they are not the preset's own.
    """
    torch.manual_seed(0)
    config = TrainingConfig(device="cpu", **settings)
    model = create_world_model(name, obs_shape=shape, action_dim=ACTIONS)
    threads = threads_of(config, model)
    torch.set_num_threads(threads)
    resolved = config.resolve(model.config)
    spec = EnvironmentSpec("noise", shape, ACTIONS, "continuous", None)
    extras = {column: size for column, (size, _) in model.replay_columns().items()}
    buffer = ReplayBuffer(2000, shape, ACTIONS, extra_columns=extras)
    fill_with_noise(buffer, spec, 1000, seed=0)
    batch = buffer.sample(resolved.batch_size, resolved.sequence_length, within_episode=False)
    square = torch.randn(2048, 2048)
    ceiling = 0.0
    for _ in range(5):
        began = time.perf_counter()
        square @ square
        ceiling = max(ceiling, 2 * 2048**3 / (time.perf_counter() - began))
    update_s, act_s = seconds_of(model, config, batch, environments)
    with FlopCounterMode(display=False) as counter:
        Updater(model, model.phases(LearningOverrides()), config).update(batch, 0.0)
    return {
        "parameters": learned_count(model),
        "threads": threads,
        "update_s": update_s,
        "act_s": act_s,
        "of_ceiling": counter.get_total_flops() / update_s / ceiling,
        "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def alone(name: str, shape: tuple[int, ...], **settings: Any) -> dict[str, Any]:
    """What `of_model` finds in a process of its own."""
    given = json.dumps([name, shape, settings])
    command = [sys.executable, __file__, "--model", given]
    done = subprocess.run(command, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def models() -> list[dict[str, Any]]:
    """Every model, in rounds; numbers as [median, least, most]."""
    found: list[list[dict[str, Any]]] = [[] for _ in MODELS]
    for _ in range(ROUNDS):
        for (name, shape), seen in zip(MODELS, found, strict=True):
            seen.append(alone(name, shape))
    return [
        {
            "model": name,
            "obs_shape": shape,
            **{key: spread([s[key] for s in seen]) for key in seen[0]},
        }
        for (name, shape), seen in zip(MODELS, found, strict=True)
    ]


def spread(values: list[float]) -> list[float]:
    """Median, least and most."""
    return [statistics.median(values), min(values), max(values)]


def worldflux(folder: Path, *arguments: str) -> float:
    """Seconds of a command."""
    command = [sys.executable, "-m", "worldflux", *arguments]
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - began


def run(folder: Path, environment: str, model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """A whole `worldflux train`: its start, its pace, and where its time went."""
    worldflux(folder, "init", "project", "--yes", "--env", environment, "--model", model)
    given = [f"--set={name}={value}" for name, value in settings.items()]
    began = time.time()
    train_s = worldflux(folder / "project", "train", "--set=training.log_interval=1", *given)
    outputs = folder / "project" / "outputs"
    manifest = json.loads((outputs / "run_manifest.json").read_text())
    rows = list(read_rows(outputs / "metrics.jsonl"))
    acting = [row for row in rows if row["rate/env_steps_per_s"] > 0]
    spent = manifest["spent_s"]
    return {
        "environment": environment,
        "model": model,
        "updates": manifest["global_step"],
        "first_update_s": rows[0]["time"] - began,
        "train_s": train_s,
        "updates_per_s": statistics.median(row["rate/updates_per_s"] for row in rows),
        "env_steps_per_s": statistics.median(row["rate/env_steps_per_s"] for row in acting),
        "shares": {what: seconds / sum(spent.values()) for what, seconds in spent.items()},
    }


def runs() -> list[dict[str, Any]]:
    found = []
    for environment, model, settings in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            found.append(run(Path(folder), environment, model, settings))
    return found


def commands() -> dict[str, list[float]]:
    """Start-up of commands that need no torch."""
    with tempfile.TemporaryDirectory() as folder:
        return {
            " ".join(words[:1] if "init" in words else words): spread(
                [worldflux(Path(folder), *(w.format(round=i) for w in words)) for i in range(7)]
            )
            for words in COMMANDS
        }


def replay() -> dict[str, float]:
    """Microseconds of a row that is added and of a batch that is drawn."""
    torch.set_num_threads(1)
    buffer = ReplayBuffer(REPLAY_ROWS, VECTOR, ACTIONS)
    spec = EnvironmentSpec("noise", VECTOR, ACTIONS, "continuous", None)
    began = time.perf_counter()
    fill_with_noise(buffer, spec, REPLAY_ROWS, seed=0)
    add_us = 1e6 * (time.perf_counter() - began) / len(buffer)
    began = time.perf_counter()
    for _ in range(1000):
        buffer.sample(*DRAWN)
    return {"add_us": add_us, "sample_us": 1e3 * (time.perf_counter() - began)}


def surroundings() -> dict[str, Any]:
    """What the figures are of: commit, machine, versions."""
    versions = software()
    names = Path("/proc/cpuinfo").read_text().split("model name\t: ")[1:]
    return {
        "git": git_state(Path(__file__).parent),
        "machine": {**machine(), "processor": names[0].splitlines()[0] if names else None},
        "software": {name: versions[name] for name in ("python", "worldflux", "torch")},
        "date": time.strftime("%Y-%m-%d"),
    }


def tables(report: dict[str, Any]) -> str:
    """A report in markdown."""
    lines: list[str] = []
    if "models" in report:
        lines += _header(
            "model",
            "observation",
            "threads",
            "update",
            "one action",
            "of the matmul rate",
            "memory",
        )
        for row in report["models"]:
            cells = [
                f"`{row['model']}`",
                " x ".join(map(str, row["obs_shape"])),
                f"{row['threads'][0]:.0f}",
                _milliseconds(row["update_s"]),
                _milliseconds(row["act_s"]),
                f"{100 * row['of_ceiling'][0]:.0f} %",
                f"{row['memory_mib'][0]:.0f} MiB",
            ]
            lines.append(_row(*cells))
    if "runs" in report:
        lines += [
            "",
            *_header(
                "run",
                "first update",
                "updates a second",
                "environment steps a second",
                "whole run",
                "its time",
            ),
        ]
        for row in report["runs"]:
            largest = sorted(row["shares"].items(), key=lambda pair: -pair[1])
            cells = [
                f"{row['environment']}, `{row['model']}`, {row['updates']:,} updates",
                f"{row['first_update_s']:.1f} s",
                f"{row['updates_per_s']:.1f}",
                f"{row['env_steps_per_s']:.1f}",
                f"{row['train_s']:.0f} s",
                ", ".join(f"{what} {100 * s:.0f} %" for what, s in largest if s >= 0.01),
            ]
            lines.append(_row(*cells))
    if "commands" in report or "replay" in report:
        lines += ["", *_header("what", "time")]
    for words, (median, least, most) in report.get("commands", {}).items():
        lines.append(_row(f"`worldflux {words}`", f"{median:.2f} s ({least:.2f} to {most:.2f})"))
    if "replay" in report:
        batch = "a batch of {} x {}".format(*DRAWN)
        cost = "{add_us:.1f} µs a row of episodes added, {sample_us:.0f} µs ".format(
            **report["replay"]
        )
        lines.append(_row(f"replay of {REPLAY_ROWS:,} rows of 24 numbers", cost + batch))
    return "\n".join(lines).strip() + "\n"


def _header(*names: str) -> list[str]:
    return [_row(*names), "|" + "---|" * len(names)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _milliseconds(seconds: list[float]) -> str:
    median, least, most = (1e3 * value for value in seconds)
    digits = 2 if median < 10 else 0
    return f"{median:.{digits}f} ms ({least:.{digits}f} to {most:.{digits}f})"


PARTS: dict[str, Callable[[], Any]] = {
    "models": models,
    "growth": lambda: growth(partial(alone, shape=VECTOR)),
    "runs": runs,
    "commands": commands,
    "replay": replay,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench.json"))
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--show", type=Path)
    parser.add_argument("--plot", type=Path, help="with --show: draw how costs grow")
    parser.add_argument("--model", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.model is not None:
        name, shape, settings = given.model
        print(json.dumps(of_model(name, tuple(shape), **settings)))
        return
    if given.show is not None:
        report = json.loads(given.show.read_text())
        print(tables(report), end="")
        if given.plot is not None:
            draw(report["growth"], given.plot)
        return
    report = surroundings() | {name: PARTS[name]() for name in given.only}
    given.out.write_text(json.dumps(report, indent=1) + "\n")
    print(tables(report), end="")


if __name__ == "__main__":
    main()
