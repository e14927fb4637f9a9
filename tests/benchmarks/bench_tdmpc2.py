"""Cost of a planned action and of an update, beside a large matmul on the same threads.

    python tests/benchmarks/bench_tdmpc2.py [--model ci|official_5m|...] [--threads 2] [--envs 1 16]
    python tests/benchmarks/bench_tdmpc2.py --profile     # where the time goes, by kernel

Prints the best and the median of the repetitions: the machine may be shared, and only the best
says what the code costs.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from worldflux.core.batch import Batch
from worldflux.core.config import TDMPC2Config
from worldflux.core.learning import LearningOverrides, Scratch
from worldflux.models.tdmpc2 import TDMPC2WorldModel

OBS_DIM, ACTION_DIM, BATCH = 24, 6, 256


def timed(function: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Best and median milliseconds of a call, after one call that is not counted."""
    function()
    costs = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        costs.append(1e3 * (time.perf_counter() - start))
    return min(costs), statistics.median(costs)


def matmul_gflops(size: int = 2048) -> float:
    """Best rate of a square float32 matmul, in GFLOP/s."""
    a = torch.randn(size, size)
    best, _ = timed(lambda: a @ a, 5)
    return 2 * size**3 / best / 1e6


def random_batch(config: TDMPC2Config) -> Batch:
    rows = config.horizon + 1
    return Batch(
        obs=torch.randn(BATCH, rows, OBS_DIM),
        actions=torch.rand(BATCH, rows, ACTION_DIM) * 2 - 1,
        rewards=torch.randn(BATCH, rows),
        terminations=torch.zeros(BATCH, rows, dtype=torch.bool),
    )


def update(model: TDMPC2WorldModel) -> Callable[[], None]:
    """One update as the Trainer makes it."""
    phases, batch = model.phases(LearningOverrides()), random_batch(model.config)

    def step() -> None:
        scratch: Scratch = {}
        for phase in phases:
            phase.optimizer.zero_grad(set_to_none=True)
            phase.loss(batch, scratch).loss.backward()
            assert phase.grad_clip is not None
            torch.nn.utils.clip_grad_norm_(phase.parameters, phase.grad_clip)
            phase.optimizer.step()
        model.after_update(scratch)

    return step


def planning(model: TDMPC2WorldModel, num_envs: int) -> Callable[[], object]:
    """One planned action for each of `num_envs` environments."""
    obs, carry = torch.randn(num_envs, OBS_DIM), model.initial_carry(num_envs)
    first = torch.zeros(num_envs, dtype=torch.bool)
    return lambda: model.policy(obs, carry, first, explore=True)


def print_profile(title: str, function: Callable[[], object], rows: int = 12) -> None:
    """Share of each kernel in the time of a call, the costliest first."""
    function()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        for _ in range(5):
            function()
    events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    print(f"{title}: share of time, calls")
    for event in events[:rows]:
        share = 100 * event.self_cpu_time_total / total
        print(f"    {event.key:36} {share:5.1f} %  {event.count // 5:6}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["ci"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--profile", action="store_true", help="also print time by kernel")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print(f"threads {given.threads}, matmul 2048: {matmul_gflops():.0f} GFLOP/s")
    for size in given.model:
        config = TDMPC2Config.from_size(size, obs_shape=(OBS_DIM,), action_dim=ACTION_DIM)
        model = TDMPC2WorldModel(config)
        for num_envs in given.envs:
            best, median = timed(planning(model, num_envs), given.repetitions)
            per_env = best / num_envs
            print(
                f"{size:12} plan {num_envs:3} envs: best {best:7.1f} ms, median {median:7.1f} ms, "
                f"best per env {per_env:6.1f} ms"
            )
        best, median = timed(update(model), given.repetitions)
        print(f"{size:12} update batch {BATCH}: best {best:7.1f} ms, median {median:7.1f} ms")
        if given.profile:
            print_profile(f"{size} plan", planning(model, 1))
            print_profile(f"{size} update", update(model))


if __name__ == "__main__":
    main()
