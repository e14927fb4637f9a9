"""DreamerV3 (Hafner et al. 2025, Nature): RSSM world model, actor and critic in imagination."""

from typing import TYPE_CHECKING

from worldflux.lazy import lazy_names

if TYPE_CHECKING:
    from .config import DreamerV3Config
    from .world_model import DreamerV3WorldModel

__getattr__ = lazy_names(
    __name__,
    {
        "DreamerV3Config": "worldflux.models.dreamerv3.config",
        "DreamerV3WorldModel": "worldflux.models.dreamerv3.world_model",
    },
)
__all__ = ["DreamerV3Config", "DreamerV3WorldModel"]
