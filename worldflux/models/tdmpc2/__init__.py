"""TD-MPC2: latent planning with a SimNorm world model and a Q ensemble (Hansen et al. 2024)."""

from typing import TYPE_CHECKING

from worldflux.lazy import lazy_names

if TYPE_CHECKING:
    from .config import TDMPC2Config
    from .world_model import TDMPC2WorldModel

__getattr__ = lazy_names(
    __name__,
    {
        "TDMPC2Config": "worldflux.models.tdmpc2.config",
        "TDMPC2WorldModel": "worldflux.models.tdmpc2.world_model",
    },
)
__all__ = ["TDMPC2Config", "TDMPC2WorldModel"]
