"""Cost of a planned action and of an update, next to a large matmul on the same threads.

    python tests/benchmarks/bench_tdmpc2.py [--model ci official_5m ...] [--envs 1 16]
    python tests/benchmarks/bench_tdmpc2.py --compile          # eager and compiled in turn
    python tests/benchmarks/bench_tdmpc2.py --official COMMAND # ours and the official code in turn
    python tests/benchmarks/bench_tdmpc2.py --device cuda --compile   # rates on a GPU
    python tests/benchmarks/bench_tdmpc2.py --shares           # where the time goes

Everything that is compared takes turns within one run: a shared machine changes from minute to
minute. The median of the turns decides; the best says what the code costs undisturbed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from official_process import OfficialProcess
from time_shares import print_shares

from worldflux.core.batch import Batch
from worldflux.core.config import TDMPC2Config
from worldflux.core.learning import LearningOverrides, Scratch
from worldflux.models.tdmpc2 import TDMPC2WorldModel

OBS_DIM, ACTION_DIM, BATCH = 24, 6, 256

Cost = Callable[[], float]
"""Makes one call and returns its milliseconds."""


def cost_of(call: Callable[[], object], device: torch.device) -> Cost:
    """The wall-clock cost of a call, its kernels on the device included."""

    def cost() -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - start)

    return cost


def in_turn(costs: dict[str, Cost], repetitions: int) -> dict[str, list[float]]:
    """Each call in turn, after two calls of each that are not counted."""
    for cost in costs.values():
        cost()
        cost()
    taken: dict[str, list[float]] = {name: [] for name in costs}
    for _ in range(repetitions):
        for name, cost in costs.items():
            taken[name].append(cost())
    return taken


def matmul_gflops(device: torch.device, size: int = 2048) -> float:
    """Best rate of a square float32 matmul, in GFLOP/s."""
    a = torch.randn(size, size, device=device)
    best = min(in_turn({"matmul": cost_of(lambda: a @ a, device)}, 5)["matmul"])
    return 2 * size**3 / best / 1e6


def random_batch(config: TDMPC2Config, device: torch.device) -> Batch:
    rows = config.horizon + 1
    return Batch(
        obs=torch.randn(BATCH, rows, OBS_DIM),
        actions=torch.rand(BATCH, rows, ACTION_DIM) * 2 - 1,
        rewards=torch.randn(BATCH, rows),
        terminations=torch.zeros(BATCH, rows, dtype=torch.bool),
    ).to(device)


def update(model: TDMPC2WorldModel) -> Callable[[], None]:
    """One update as the Trainer makes it."""
    phases, batch = model.phases(LearningOverrides()), random_batch(model.config, model.device)

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


def planning(model: TDMPC2WorldModel, num_envs: int = 1) -> Callable[[], object]:
    """One planned action for each of `num_envs` environments."""
    obs = torch.randn(num_envs, OBS_DIM, device=model.device)
    carry = model.initial_carry(num_envs)
    first = torch.zeros(num_envs, dtype=torch.bool, device=model.device)
    return lambda: model.policy(obs, carry, first, explore=True)


def refuse(reason: str) -> None:
    """A fallback would be timed under the wrong name."""
    raise SystemExit(f"torch.compile failed: {reason}")


def report(size: str, what: str, taken: dict[str, list[float]], base: str) -> None:
    """One line a contender, with its median over the median of `base`."""
    whole = statistics.median(taken[base])
    for name, costs in taken.items():
        median = statistics.median(costs)
        print(
            f"{size:12} {what:14} {name:16} median {median:8.1f} ms  best {min(costs):8.1f} ms  "
            f"{1e3 / median:7.1f} /s  {median / whole:5.2f} of {base}"
        )


def compare(size: str, given: argparse.Namespace, official: OfficialProcess | None) -> None:
    """Plans and updates of all contenders in turn, then plans of several environments."""
    device = torch.device(given.device)
    config = TDMPC2Config.from_size(size, obs_shape=(OBS_DIM,), action_dim=ACTION_DIM)
    model = TDMPC2WorldModel(config).to(device)
    compiled = TDMPC2WorldModel(config).to(device)
    if given.compile:
        compiled.compile_for_training(refuse)
    for what, prepare in (("plan", planning), ("update", update)):
        call = prepare(model)
        costs = {"eager": cost_of(call, device)}
        if given.compile:
            costs["compiled"] = cost_of(prepare(compiled), device)
        if official is not None:
            costs["official"] = lambda what=what: official.cost(what)  # type: ignore[misc]
        base = "eager" if official is None else "official"
        report(size, what, in_turn(costs, given.repetitions), base)
        if given.shares:
            print_shares(f"{size} {what}", call)
    several = {f"{n} envs": cost_of(planning(model, n), device) for n in given.envs}
    taken = in_turn(several, given.repetitions)
    for (name, costs), num_envs in zip(taken.items(), given.envs, strict=True):
        taken[name] = [cost / num_envs for cost in costs]
    report(size, "plan, each of", taken, f"{given.envs[0]} envs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", nargs="+", default=["ci"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--envs", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="torch.compile next to eager")
    parser.add_argument("--official", metavar="COMMAND", help="see official_process.py")
    parser.add_argument("--shares", action="store_true", help="also print where the time goes")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    rate = matmul_gflops(torch.device(given.device))
    print(f"{given.device}, threads {given.threads}, matmul 2048: {rate:.0f} GFLOP/s")
    with OfficialProcess(given.official) if given.official else nullcontext() as official:
        if official is not None:
            print(official.greeting)
        for size in given.model:
            compare(size, given, official)


if __name__ == "__main__":
    main()
