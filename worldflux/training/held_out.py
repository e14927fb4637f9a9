"""The loss of a model on data that it is not trained on."""

from __future__ import annotations

import torch

from worldflux.core.world_model import WorldModel
from worldflux.data.sources import Data, as_source
from worldflux.errors import ConfigurationError

from .config import ResolvedTraining


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
