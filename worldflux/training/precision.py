"""`training.precision`: the type that is set, or the one that is faster on this machine."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from worldflux.clock import mean_seconds
from worldflux.core.batch import Batch
from worldflux.core.learning import LearningOverrides
from worldflux.core.precision import COMPUTE_TYPES
from worldflux.core.world_model import WorldModel

from .config import TrainingConfig
from .device import fitting
from .update import Updater, set_type

FLOAT32, BFLOAT16 = "float32", "bfloat16"
_WORTH_IT = 0.9  # of float32's time: a type with 8 bits of precision has to save more than noise
_TURNS = 2  # each type is timed in turn, and its better time counts


@dataclass(frozen=True)
class Precision:
    """Names of the types that networks compute in, in updates and in actions, and why."""

    learning: str
    acting: str
    reason: str = "training.precision"

    def __str__(self) -> str:
        return f"precision: updates in {self.learning}, actions in {self.acting}\n  {self.reason}"


def precision_of(config: TrainingConfig, model: WorldModel) -> Precision | None:
    """What the settings say; None where it is to be measured ("auto")."""
    name = set_type(config, model)
    if name is None:
        return None
    if model.config.dtype != FLOAT32:
        return Precision(name, name, "dtype of the model")
    return Precision(name, name)


def seconds_of(
    model: WorldModel, config: TrainingConfig, batch: Batch, num_envs: int, name: str | None = None
) -> tuple[float, float]:
    """Seconds of an update with `batch`, and of an action for `num_envs` environments (0 for none).

    Timed on a copy, in the type of that name or the one that is set; the random streams stay as
    they are.
    """
    name = name or set_type(config, model) or FLOAT32
    with _random_streams_kept():
        with fitting("an update", "training.batch_size", "make it smaller, or the model"):
            trial = copy.deepcopy(model)
            updater = Updater(trial, trial.phases(LearningOverrides()), config)
            updater.compute_in(name)
            trial.acting_dtype = COMPUTE_TYPES[name]
            update_s = mean_seconds(lambda: trial.after_update(updater.update(batch, 0.0)[1]))
        with fitting("an action", "architecture", "make the model or its planner smaller"):
            return update_s, _policy_seconds(trial, batch, num_envs) if num_envs else 0.0


def faster_precision(
    model: WorldModel, config: TrainingConfig, batch: Batch, num_envs: int
) -> Precision:
    """The faster of float32 and bfloat16 on this machine, for updates and for actions apart."""
    times: dict[str, list[tuple[float, float]]] = {FLOAT32: [], BFLOAT16: []}
    for _ in range(_TURNS):
        for name, found in times.items():
            found.append(seconds_of(model, config, batch, num_envs, name))
    best = {name: np.min(found, axis=0) for name, found in times.items()}
    ratios = [float(half / max(full, 1e-9)) for full, half in zip(*best.values(), strict=True)]
    learning, acting = (BFLOAT16 if ratio < _WORTH_IT else FLOAT32 for ratio in ratios)
    words = f"measured: bfloat16 takes {ratios[0]:.2f} and {ratios[1]:.2f} of float32's time"
    return Precision(learning, acting, words)


def _policy_seconds(trial: WorldModel, batch: Batch, num_envs: int) -> float:
    rows = torch.arange(num_envs, device=trial.device) % batch.batch_size
    seen = batch.obs
    obs = {k: v[rows, 0] for k, v in seen.items()} if isinstance(seen, dict) else seen[rows, 0]
    carry = trial.initial_carry(num_envs)
    first = torch.ones(num_envs, dtype=torch.bool, device=trial.device)
    # On the CPU, where an environment takes them: a GPU has not finished before.
    return mean_seconds(lambda: trial.policy(obs, carry, first, explore=True)[0].cpu())


@contextmanager
def _random_streams_kept() -> Iterator[None]:
    """Whatever is drawn inside leaves the run's own random streams where they were."""
    python, numbers = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
