"""DreamerV3 beside sheeprl's, eager and compiled, call by call in turn.

    make bench-peers
    python tests/benchmarks/bench_peers.py --sheeprl PYTHON [--rounds 9] [--compiled]

The same sizes (official_1m: 640,867 parameters), batch (16 x 64 and a step of context), horizon,
observation (24 numbers) and actions (6); an update is the program's own, on one fixed batch, and an
action is of one environment. --compiled also races both compiled: sheeprl's first compilation took
6.5 minutes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
from bench_dreamer import random_batch, refuse, update
from official_process import OfficialProcess

from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import LearningOverrides
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.training.device import keep_freed_memory

ACTS = 50
PEER = Path(__file__).with_name("peer_sheeprl.py")


def ours(compiled: bool) -> dict[str, Callable[[], float]]:
    """Milliseconds of our update and of our action."""
    torch.manual_seed(0)
    config = DreamerV3Config.from_size("official_1m", obs_shape=(24,), action_dim=6)
    model, batch = DreamerV3WorldModel(config), random_batch(config)
    if compiled:
        model.compile_for_training(refuse)
    (phase,) = model.phases(LearningOverrides())
    carry, first = model.initial_carry(1), torch.zeros(1, dtype=torch.bool)
    seen = torch.randn(1, 24)

    def milliseconds(call: Callable[[], object], times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            call()
        return 1e3 * (time.perf_counter() - began) / times

    return {
        "update": lambda: milliseconds(lambda: update(model, phase, batch), 1),
        "act": lambda: milliseconds(lambda: model.policy(seen, carry, first, explore=True), ACTS),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sheeprl", required=True, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compiled", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(given.threads)
    with ExitStack() as stack:
        costs: dict[str, Callable[[str], float]] = {}
        for compiled in (False, True)[: 1 + given.compiled]:
            word = "compiled" if compiled else "eager"
            flags = f"--threads {given.threads}{' --compile' if compiled else ''}"
            peer = stack.enter_context(OfficialProcess(f"{given.sheeprl} {PEER} {flags}"))
            print(f"sheeprl, {word}: {peer.greeting}", flush=True)
            costs[f"sheeprl, {word}"] = peer.cost
            costs[f"worldflux, {word}"] = lambda what, own=ours(compiled): own[what]()  # type: ignore[misc]
        seen: dict[tuple[str, str], list[float]] = {}
        for turn in range(given.rounds + 3):  # the first ones warm up
            for name, cost in costs.items():
                for what in ("update", "act"):
                    seen.setdefault((name, what), [])
                    seen[name, what] += [cost(what)][: turn > 2]
    for (name, what), found in seen.items():
        median = statistics.median(found)
        least = f"{min(found):.2f} to {max(found):.2f}"
        print(f"{name:22s} {what:7s} {median:8.2f} ms ({least})")


if __name__ == "__main__":
    main()
