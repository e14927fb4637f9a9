"""The documented import path of DreamerV3, whose family lives in `worldflux.models.dreamerv3`."""

from worldflux.models.dreamerv3 import DreamerV3Config, DreamerV3WorldModel

__all__ = ["DreamerV3Config", "DreamerV3WorldModel"]
