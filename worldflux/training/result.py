"""`TrainingResult`: how a call of `Trainer.train` ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from worldflux.core.world_model import WorldModel
from worldflux.errors import ConfigurationError


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
