"""DreamerV3 (Hafner et al. 2025, Nature): RSSM world model, actor and critic in imagination."""

from worldflux.models.dreamer.world_model import DreamerV3WorldModel

__all__ = ["DreamerV3WorldModel"]
