"""Families of world models, each in its own folder; their public classes, imported lazily."""

from typing import TYPE_CHECKING

from worldflux.lazy import lazy_names

if TYPE_CHECKING:
    from .bmpc import BMPCConfig, BMPCWorldModel
    from .dreamerv3 import DreamerV3Config, DreamerV3WorldModel
    from .tdmpc2 import TDMPC2Config, TDMPC2WorldModel

FAMILY_CLASSES = {
    "DreamerV3Config": "worldflux.models.dreamerv3",
    "DreamerV3WorldModel": "worldflux.models.dreamerv3",
    "TDMPC2Config": "worldflux.models.tdmpc2",
    "TDMPC2WorldModel": "worldflux.models.tdmpc2",
    "BMPCConfig": "worldflux.models.bmpc",
    "BMPCWorldModel": "worldflux.models.bmpc",
}
__getattr__ = lazy_names(__name__, FAMILY_CLASSES)
__all__ = [
    "BMPCConfig",
    "BMPCWorldModel",
    "DreamerV3Config",
    "DreamerV3WorldModel",
    "TDMPC2Config",
    "TDMPC2WorldModel",
]
