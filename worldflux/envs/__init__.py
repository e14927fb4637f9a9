"""Environments of every Gymnasium namespace behind one observation and action contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worldflux.lazy import lazy_names

if TYPE_CHECKING:
    from .make import make_environment
    from .spec import EnvironmentSpec
    from .vector import VectorEnvironment

__all__ = ["EnvironmentSpec", "VectorEnvironment", "make_environment"]

__getattr__ = lazy_names(
    __name__,
    {
        "EnvironmentSpec": "worldflux.envs.spec",
        "VectorEnvironment": "worldflux.envs.vector",
        "make_environment": "worldflux.envs.make",
    },
)
