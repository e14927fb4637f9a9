"""Model configurations: plain dataclasses, enums and presets as data. No torch.

from worldflux.core.config import DreamerV3Config, TDMPC2Config, WorldModelConfig
"""

from .base import DynamicsType, LatentType, TrainingRecipe, WorldModelConfig
from .dreamer import DreamerV3Config
from .tdmpc2 import TDMPC2Config
from .validation import strict_dataclass

__all__ = [
    "DreamerV3Config",
    "DynamicsType",
    "LatentType",
    "TDMPC2Config",
    "TrainingRecipe",
    "WorldModelConfig",
    "strict_dataclass",
]
