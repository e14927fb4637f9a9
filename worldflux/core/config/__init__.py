"""Model configurations: plain dataclasses, enums and presets as data. No torch.

from worldflux.core.config import DreamerV3Config, TDMPC2Config, WorldModelConfig
"""

from typing import TYPE_CHECKING, Any

from .base import DynamicsType, LatentType, TrainingRecipe, WorldModelConfig
from .validation import strict_dataclass

if TYPE_CHECKING:
    from worldflux.models import DreamerV3Config as DreamerV3Config
    from worldflux.models import TDMPC2Config as TDMPC2Config

__all__ = [
    "DynamicsType",
    "LatentType",
    "TrainingRecipe",
    "WorldModelConfig",
    "strict_dataclass",
]


def __getattr__(name: str) -> Any:
    """The configurations of the families, which live with them."""
    from worldflux import models

    if name.endswith("Config") and name in models.FAMILY_CLASSES:
        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
