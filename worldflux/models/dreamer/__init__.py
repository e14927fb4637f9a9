"""DreamerV3: `DreamerV3WorldModel`, built from a `DreamerV3Config`."""

from worldflux.core.config import DreamerV3Config
from worldflux.models.dreamer.world_model import DreamerV3WorldModel

__all__ = ["DreamerV3Config", "DreamerV3WorldModel"]
