"""DreamerV3 (Hafner et al. 2025, Nature): RSSM world model, actor and critic in imagination."""

from worldflux.core.config import DreamerV3Config
from worldflux.models.dreamer.world_model import DreamerV3WorldModel

__all__ = ["DreamerV3Config", "DreamerV3WorldModel"]
