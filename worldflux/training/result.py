"""What a Trainer returns: how training ended, and the losses on held-out data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from worldflux.core.world_model import WorldModel
from worldflux.data.sources import Data, as_source
from worldflux.errors import ConfigurationError

from .config import ResolvedTraining


@dataclass
class TrainingResult:
    """How a call of `Trainer.train` ended: counters, last metrics, best evaluation, the model."""

    step: int
    env_steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    best_return: float | None = None
    stopped_early: bool = False
    model: WorldModel | None = field(default=None, repr=False, compare=False)

    def save_pretrained(self, directory: str | Path) -> None:
        """Save the trained model; `create_world_model(directory)` opens it.

        Raises:
            ConfigurationError: after a delegated run, whose model is not in this process.
        """
        if self.model is None:
            raise ConfigurationError("this run's model is elsewhere: see its output folder")
        self.model.save_pretrained(directory)


def held_out_losses(
    model: WorldModel, data: Data, numbers: ResolvedTraining, num_batches: int
) -> dict[str, float]:
    """`loss` and its components, each the mean over `num_batches` batches of the training's size.

    Raises:
        ConfigurationError: for fewer than one batch.
    """
    if num_batches < 1:
        raise ConfigurationError(f"num_batches = {num_batches} is not allowed: at least 1")
    source, found = as_source(data, model), []
    with torch.no_grad():
        for _ in range(num_batches):
            batch = source.sample(numbers.batch_size, numbers.sequence_length, model.device)
            out = model.loss(batch)
            found.append(
                {"loss": float(out.loss), **{n: float(v) for n, v in out.components.items()}}
            )
    return {name: sum(each[name] for each in found) / num_batches for name in found[0]}
