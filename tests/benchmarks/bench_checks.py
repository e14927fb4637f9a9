"""What an update pays for being checked and undoable, as a share of the update.

    python tests/benchmarks/bench_checks.py [--models tdmpc2:ci ...] [--repetitions 20]

Three forms take turns: as the Trainer makes it; without the check that batch, losses and gradient
are finite (its transfer from the device stays, which logging needs); and also without the copies
that let a later phase be undone. Then the check and the copies alone, as shares of the update: what
they cost is less than one update differs from the next. The least processor time of each decides:
of a shared machine it is the steadiest number.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from worldflux.core.batch import Batch
from worldflux.core.learning import LearningOverrides
from worldflux.core.world_model import WorldModel
from worldflux.factory import create_world_model
from worldflux.training import update as updates
from worldflux.training.config import TrainingConfig
from worldflux.training.update import Updater

MODELS = ("tdmpc2:ci", "tdmpc2:official_5m", "dreamerv3:official_1m")
OBS_DIM, ACTION_DIM = 24, 6
FORMS = ("as it is", "unchecked", "unchecked, not undoable")


def random_batch(model: WorldModel, config: TrainingConfig) -> Batch:
    """A batch of the family's own size."""
    resolved = config.resolve(model.config)
    rows = (resolved.batch_size, resolved.sequence_length)
    extras = {
        name: torch.zeros(*rows, *shape) for name, (shape, _) in model.replay_columns().items()
    }
    return Batch(
        obs=torch.randn(*rows, OBS_DIM),
        actions=torch.rand(*rows, ACTION_DIM) * 2 - 1,
        rewards=torch.randn(*rows),
        terminations=torch.zeros(*rows, dtype=torch.bool),
        extras=extras,
    )


@contextmanager
def form(name: str, updater: Updater) -> Iterator[None]:
    """Within the block the updater works in one of the three forms."""
    keep, numbers, require = updater.kept.keep, updates._numbers, updates._require_finite
    if name != FORMS[0]:
        updates._numbers = lambda batch: [torch.zeros(1)]
        updates._require_finite = lambda metrics: None
    if name == FORMS[2]:
        updater.kept.keep = lambda: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        updates._numbers, updates._require_finite = numbers, require
        updater.kept.keep = keep  # type: ignore[method-assign]


def least(call: Callable[[], object], updater: Updater, repetitions: int) -> dict[str, list[float]]:
    """Least processor and least wall milliseconds of each form, in turns."""
    best = {name: [float("inf")] * 2 for name in FORMS}
    for turn in range(repetitions + 2):
        for name in FORMS:
            with form(name, updater):
                worked, passed = time.process_time(), time.perf_counter()
                call()
                costs = time.process_time() - worked, time.perf_counter() - passed
            if turn >= 2:
                best[name] = [min(a, 1e3 * b) for a, b in zip(best[name], costs, strict=True)]
    return best


def alone(updater: Updater, batch: Batch, repetitions: int) -> dict[str, float]:
    """Least processor milliseconds of what the forms leave out, by itself."""

    def check() -> None:
        for phase in updater.phases:
            one = torch.stack([x.sum() * 0 for x in updates._numbers(batch)]).sum()
            updates._require_finite({"batch": one.item(), phase.name: 0.0})

    best = {}
    for name, work in (("check alone", check), ("copies alone", updater.kept.keep)):
        best[name] = float("inf")
        for _ in range(repetitions):
            began = time.process_time()
            work()
            best[name] = min(best[name], 1e3 * (time.process_time() - began))
    return best


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(f"{given.threads} thread(s); least ms of {given.repetitions} turns: processor, wall")
    for model_id in given.models:
        actor = {"actor_critic": True} if model_id.startswith("dreamer") else {}
        model = create_world_model(model_id, obs_shape=(OBS_DIM,), action_dim=ACTION_DIM, **actor)
        config = TrainingConfig(device="cpu")
        updater = Updater(model, model.phases(LearningOverrides()), config)
        batch = random_batch(model, config)

        def call(m: WorldModel = model, u: Updater = updater, b: Batch = batch) -> None:
            m.after_update(u.update(b, 1e-6)[1])

        best = least(call, updater, given.repetitions)
        whole = best[FORMS[0]][0]
        for name, (worked, passed) in best.items():
            numbers = f"{worked:8.2f} {passed:8.2f}  {worked / whole:.4f}"
            print(f"{model_id:24s} {name:24s} {numbers}", flush=True)
        for name, worked in alone(updater, batch, 10 * given.repetitions).items():
            print(f"{model_id:24s} {name:24s} {worked:8.3f}           {worked / whole:.4f}")


if __name__ == "__main__":
    main()
