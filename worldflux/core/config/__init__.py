"""Model configurations: plain dataclasses, enums and presets as data. No torch.

from worldflux.core.config import DreamerV3Config, TDMPC2Config, WorldModelConfig
"""

from typing import TYPE_CHECKING

from worldflux.lazy import lazy_names

from .base import DynamicsType, LatentType, TrainingRecipe, WorldModelConfig
from .validation import strict_dataclass

if TYPE_CHECKING:
    from worldflux.models.dreamerv3.config import DreamerV3Config
    from worldflux.models.tdmpc2.config import TDMPC2Config

__getattr__ = lazy_names(
    __name__,
    {
        "DreamerV3Config": "worldflux.models.dreamerv3.config",
        "TDMPC2Config": "worldflux.models.tdmpc2.config",
    },
)
__all__ = [
    "DreamerV3Config",
    "DynamicsType",
    "LatentType",
    "TDMPC2Config",
    "TrainingRecipe",
    "WorldModelConfig",
    "strict_dataclass",
]
