"""Model configurations: plain dataclasses, enums and presets as data. No torch.

from worldflux.core.config import DreamerV3Config, TDMPC2Config, WorldModelConfig
"""

from typing import TYPE_CHECKING

from worldflux.lazy import lazy_names
from worldflux.models import FAMILY_CLASSES

from .base import ACTION_MASK, DynamicsType, LatentType, TrainingRecipe, WorldModelConfig
from .validation import strict_dataclass

if TYPE_CHECKING:
    from worldflux.models import BMPCConfig as BMPCConfig
    from worldflux.models import DreamerV3Config as DreamerV3Config
    from worldflux.models import TDMPC2Config as TDMPC2Config

__getattr__ = lazy_names(__name__, FAMILY_CLASSES)  # the families' configurations
__all__ = [
    "ACTION_MASK",
    "DynamicsType",
    "LatentType",
    "TrainingRecipe",
    "WorldModelConfig",
    "strict_dataclass",
]
