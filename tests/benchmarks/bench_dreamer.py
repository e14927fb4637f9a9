"""Cost of a whole DreamerV3 update and of its parts, next to a large matmul on the same threads.

    python tests/benchmarks/bench_dreamer.py [--model official_1m|...] [--threads 2] [--image]
    python tests/benchmarks/bench_dreamer.py --image --threads 1 --barlow

Batch 16 x 64 (and one step of context), imagination horizon 15, 24 numbers (or 64 x 64 pixels) and
6 continuous actions. Prints the best and the median of the repetitions: the machine may be shared,
and only the best says what the code costs. As in `worldflux train`, freed memory is kept;
--hand-back shows what that saves. --barlow instead compares an update without a decoder with one
that has it, in turn, in seconds of the processor; both compiled with --compile.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import time
from collections.abc import Callable

import torch

from worldflux.core.batch import Batch
from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import LearningOverrides, Phase, Scratch
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.models.dreamerv3.imagination import imagine, imagined_outcomes
from worldflux.models.dreamerv3.rssm import Latent
from worldflux.training.device import keep_freed_memory

BATCH, LENGTH = 16, 64


def timed(function: Callable[[], object], repetitions: int) -> tuple[float, float]:
    """Best and median milliseconds of a call, after one call that is not counted."""
    function()
    costs = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        costs.append(1e3 * (time.perf_counter() - start))
    return min(costs), statistics.median(costs)


def random_batch(config: DreamerV3Config) -> Batch:
    rows = LENGTH + config.replay_context
    obs = torch.randn(BATCH, rows, *config.obs_shape)
    if config.is_image:
        obs = torch.randint(0, 256, obs.shape, dtype=torch.uint8)
    return Batch(
        obs=obs,
        actions=torch.rand(BATCH, rows, config.action_dim) * 2 - 1,
        rewards=torch.randn(BATCH, rows),
        terminations=torch.zeros(BATCH, rows, dtype=torch.bool),
        extras={
            "deter": torch.zeros(BATCH, rows, config.deter_dim),
            "stoch": torch.ones(BATCH, rows, config.stoch_discrete),
        },
    )


def update(model: DreamerV3WorldModel, phase: Phase, batch: Batch) -> None:
    """One update as the Trainer makes it."""
    scratch: Scratch = {}
    phase.optimizer.zero_grad(set_to_none=True)
    phase.loss(batch, scratch).loss.backward()
    phase.optimizer.step()
    model.after_update(scratch)


def parts(model: DreamerV3WorldModel, batch: Batch) -> dict[str, Callable[[], object]]:
    """The forward parts of an update, one by one."""
    rssm, config = model.rssm, model.config
    tokens = torch.randn(BATCH, LENGTH, model.encoder.token_width)
    actions = batch.actions[:, :LENGTH]
    first = torch.zeros(BATCH, LENGTH, dtype=torch.bool)
    start = Latent(
        torch.zeros(BATCH * LENGTH, config.deter_dim),
        torch.zeros(BATCH * LENGTH, config.stoch_discrete, config.stoch_classes),
    )
    states = BATCH * LENGTH
    features = torch.randn(
        states, config.imagination_horizon + 1, config.deter_dim + config.stoch_dim
    )

    return {
        "encoder": lambda: model.encoder(model.observations(batch.obs)),
        "posterior over time": lambda: rssm.observe(
            tokens, actions, first, rssm.initial(BATCH), rssm.noise(BATCH, LENGTH)
        ),
        "imagination": lambda: imagine(model, start),
        "reward and continue": lambda: imagined_outcomes(model, features),
        "actor": lambda: model.actor(features).entropy(),
        "critic": lambda: model.critic(features).loss(features[..., 0], features[..., 1]),
        "slow critic": lambda: model.slow_value(features),
        "loss (all of the forward)": lambda: model.loss(batch),
    }


def side_by_side(model: str, shape: tuple[int, ...], repetitions: int, compile: bool) -> None:
    """Medians of an update with each representation, the two in turn: other jobs slow both."""
    costs: dict[str, list[float]] = {"reconstruction": [], "barlow": []}
    updates: dict[str, Callable[[], object]] = {}
    for kind in costs:
        torch.manual_seed(0)
        fields = {"obs_shape": shape, "action_dim": 6, "representation": kind}
        agent = DreamerV3WorldModel(DreamerV3Config.from_size(model, **fields))
        if compile:
            agent.compile_for_training(refuse)
        (phase,) = agent.phases(LearningOverrides())
        updates[kind] = functools.partial(update, agent, phase, random_batch(agent.config))
        updates[kind]()
    for _ in range(repetitions):
        for kind, run in updates.items():
            start = time.process_time()
            run()
            costs[kind].append(time.process_time() - start)
    medians = {kind: statistics.median(found) for kind, found in costs.items()}
    for kind, found in costs.items():
        print(f"{kind:16s} median {medians[kind]:.3f} s ({min(found):.3f} to {max(found):.3f})")
    print(f"barlow / reconstruction {medians['barlow'] / medians['reconstruction']:.3f}")


def refuse(reason: str) -> None:
    """A fallback would be timed under the wrong name."""
    raise SystemExit(f"torch.compile failed: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="official_1m")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=10)
    parser.add_argument("--image", action="store_true")
    parser.add_argument("--barlow", action="store_true", help="an update with and without decoder")
    parser.add_argument("--compile", action="store_true", help="torch.compile next to eager")
    parser.add_argument("--hand-back", action="store_true", help="freed memory to the system")
    arguments = parser.parse_args()
    if not arguments.hand_back:
        keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    shape = (3, 64, 64) if arguments.image else (24,)
    if arguments.barlow:
        side_by_side(arguments.model, shape, arguments.repetitions, arguments.compile)
        return
    config = DreamerV3Config.from_size(arguments.model, obs_shape=shape, action_dim=6)
    model, batch = DreamerV3WorldModel(config), random_batch(config)
    (phase,) = model.phases(LearningOverrides())
    square = torch.randn(2048, 2048)

    def line(name: str, function: Callable[[], object]) -> None:
        best, median = timed(function, arguments.repetitions)
        print(f"{name:28s} best {best:9.1f} ms   median {median:9.1f} ms")

    learned = sum(p.numel() for p in phase.parameters)
    print(f"{arguments.model}, {learned:,} parameters, {shape}, {arguments.threads} threads")
    line("matmul 2048", lambda: square @ square)
    for name, function in parts(model, batch).items():
        line(name, function)
    line("loss and its backward", lambda: phase.loss(batch, {}).loss.backward())
    line("optimiser", phase.optimizer.step)  # on the gradients of the line above
    whole = {"whole update": lambda: update(model, phase, batch)}
    if arguments.compile:
        compiled = copy.deepcopy(model)
        compiled.compile_for_training(refuse)
        (its_phase,) = compiled.phases(LearningOverrides())
        whole["whole update, compiled"] = lambda: update(compiled, its_phase, batch)
    for name, function in (*whole.items(), *whole.items()):  # in turn
        line(name, function)
    line("matmul 2048, again", lambda: square @ square)


if __name__ == "__main__":
    main()
