"""Training: `Trainer`, `TrainingConfig`, `ReplayBuffer`, `train`. Names are handed on lazily."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldflux.lazy import lazy_names

if TYPE_CHECKING:
    from worldflux.backends.jobs import JobHandle, JobStatus
    from worldflux.data.replay import ReplayBuffer

    from .config import TrainingConfig
    from .one_call import train
    from .result import TrainingResult
    from .trainer import Trainer

__all__ = [
    "JobHandle",
    "JobStatus",
    "ReplayBuffer",
    "Trainer",
    "TrainingConfig",
    "TrainingResult",
    "train",
]

__getattr__ = lazy_names(
    __name__,
    {
        "JobHandle": "worldflux.backends.jobs",
        "JobStatus": "worldflux.backends.jobs",
        "ReplayBuffer": "worldflux.data.replay",
        "Trainer": "worldflux.training.trainer",
        "TrainingConfig": "worldflux.training.config",
        "TrainingResult": "worldflux.training.result",
        "train": "worldflux.training.one_call",
    },
)
