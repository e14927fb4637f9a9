"""What a GPU gives: whole updates and actions of every family, in float32 and with mixed precision,
uncompiled and with `training.compile` (compiled functions and CUDA graphs).

    python tests/benchmarks/bench_gpu.py [--device cuda] [--minutes 8] [--only NAME ...]

One process a line, because one must not warm up or break another; lines that no longer fit in the
minutes are left out, and said. An update is the Trainer's own: the batch's way to the device, all
losses, the finite check, clipping and the optimiser.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from worldflux import create_world_model
from worldflux.core.learning import LearningOverrides, set_seed
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.spec import EnvironmentSpec
from worldflux.training.config import TrainingConfig
from worldflux.training.data import fill_with_noise
from worldflux.training.update import Updater

VECTOR, IMAGE = (24,), (3, 64, 64)
# Name -> model and observation; six numbers as actions. The most wanted first.
CASES: dict[str, tuple[str, tuple[int, ...]]] = {
    "dreamerv3 1m": ("dreamerv3:official_1m", VECTOR),
    "tdmpc2 5m": ("tdmpc2:official_5m", VECTOR),
    "dreamerv3 12m image": ("dreamerv3:official_12m", IMAGE),
    "dreamerv3 12m": ("dreamerv3:official_12m", VECTOR),
    "r2dreamer 12m image": ("r2dreamer:official_12m", IMAGE),
    "bmpc 5m": ("bmpc:official_5m", VECTOR),
}
WAYS = {
    "float32": (False, False),
    "float32 compiled": (False, True),
    "mixed": (True, False),
    "mixed compiled": (True, True),
}
UPDATES, ACTIONS = 12, 30


def timed(call: Callable[[], object], count: int, device: torch.device) -> list[float]:
    """Milliseconds of each call."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(1e3 * (time.perf_counter() - began))
    return found


def measured(case: str, way: str, device: torch.device) -> dict[str, object]:
    """Medians of an update and an action, and what else is worth knowing."""
    name, shape = CASES[case]
    mixed, compiled = WAYS[way]
    set_seed(0)
    model = create_world_model(name, obs_shape=shape, action_dim=6).to(device).eval()
    config = TrainingConfig(mixed_precision=mixed, compile=compiled)
    resolved = config.resolve(model.config)
    updater = Updater(model, model.phases(LearningOverrides()), config)
    said: list[str] = []
    if compiled:
        model.compile_for_training(said.append)
        updater.use_graphs(said.append)
    extras = {key: columns for key, (columns, _) in model.replay_columns().items()}
    noise = ReplayBuffer(8192, shape, 6, extra_columns=extras, seed=0)
    fill_with_noise(noise, EnvironmentSpec("noise", shape, 6, "continuous", None), 4096, 0)
    within = not model.config.training_recipe().crosses_episodes
    sizes = resolved.batch_size, resolved.sequence_length

    def update() -> None:
        batch = noise.sample(*sizes, device, within_episode=within)
        _, scratch = updater.update(batch, 1.0)
        model.after_update(scratch)

    obs = noise.sample(1, sizes[1], device, within_episode=within).obs[:, 0]
    carry, first = model.initial_carry(1), torch.zeros(1, dtype=torch.bool, device=device)

    def act() -> None:
        with torch.inference_mode():
            model.policy(obs, carry, first, explore=True)

    began = time.perf_counter()
    timed(update, 6, device)
    ready_s = time.perf_counter() - began
    updates = timed(update, UPDATES, device)
    timed(act, 4, device)
    actions = timed(act, ACTIONS, device)
    used = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else 0.0
    return {
        "case": case,
        "way": way,
        "update_ms": statistics.median(updates),
        "update_best_ms": min(updates),
        "act_ms": statistics.median(actions),
        "act_best_ms": min(actions),
        "six_updates_s": ready_s,
        "gib": used,
        "fallback": said,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    device = torch.device(given.device)
    if given.one:
        print(json.dumps(measured(*given.one, device)))
        return
    if device.type == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, batches of each recipe")
    until, rows = time.monotonic() + 60 * given.minutes, []
    for case in given.only:
        for way in given.ways:
            left = until - time.monotonic()
            if left < 10:
                print(f"{case:20} {way:17} not measured: the minutes are over")
                continue
            command = [sys.executable, __file__, "--device", given.device, "--one", case, way]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=left)
            except subprocess.TimeoutExpired:
                print(f"{case:20} {way:17} not measured: the minutes are over")
                continue
            if done.returncode:
                print(f"{case:20} {way:17} failed: {done.stderr[-2000:]}")
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            rows.append(row)
            print(
                f"{case:20} {way:17} update {row['update_ms']:8.1f} ms (best "
                f"{row['update_best_ms']:.1f}), action {row['act_ms']:7.2f} ms, first six updates "
                f"{row['six_updates_s']:5.1f} s, {row['gib']:.1f} GiB {' '.join(row['fallback'])}",
                flush=True,
            )
            if given.json:
                given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
