"""TD-MPC2: latent planning with a SimNorm world model and a Q ensemble (Hansen et al. 2024)."""

from worldflux.core.config import TDMPC2Config

from .world_model import TDMPC2WorldModel

__all__ = ["TDMPC2Config", "TDMPC2WorldModel"]
