"""`worldflux.training.train`: a model and data in, the trained model out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worldflux.core.learning import set_seed
from worldflux.core.world_model import WorldModel
from worldflux.data.sources import Data

from .callback import Callback
from .config import TrainingConfig
from .trainer import Trainer


def train(
    model: WorldModel | str,
    data: Data,
    config: TrainingConfig | None = None,
    *,
    num_steps: int | None = None,
    callbacks: Sequence[Callback] | None = None,
    **settings: Any,
) -> WorldModel:
    """Train a model, or one named in the catalogue (`config.model_overrides` applied); returns it.

    Args:
        **settings: fields of `TrainingConfig` over those of `config`, such as total_steps.

    Raises:
        ModelNotFoundError: when the name is unknown.
        ConfigurationError: for an unknown or impossible setting.
    """
    from worldflux.factory import create_world_model

    config = (config or TrainingConfig()).with_overrides(**settings)
    if isinstance(model, str):
        set_seed(config.seed)
    built = create_world_model(model, **config.model_overrides) if isinstance(model, str) else model
    trainer = Trainer(built, config, callbacks, seed_streams=not isinstance(model, str))
    trainer.train(data, num_steps)
    return trainer.model
