"""BMPC: TD-MPC2's world model with a V ensemble and a policy that imitates the planner (Wang et al.
2025)."""

from typing import TYPE_CHECKING

from worldflux.lazy import lazy_names

if TYPE_CHECKING:
    from .config import BMPCConfig
    from .world_model import BMPCWorldModel

__getattr__ = lazy_names(
    __name__,
    {
        "BMPCConfig": "worldflux.models.bmpc.config",
        "BMPCWorldModel": "worldflux.models.bmpc.world_model",
    },
)
__all__ = ["BMPCConfig", "BMPCWorldModel"]
