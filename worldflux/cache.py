"""The folder for what outlives a project: where delegated jobs are found again."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLES = ("WORLDFLUX_CACHE_DIR", "WORLDLOOM_CACHE_DIR")


def cache_folder() -> Path:
    """`WORLDFLUX_CACHE_DIR` (or the older `WORLDLOOM_CACHE_DIR`), else the user's cache folder."""
    for name in VARIABLES:
        if os.environ.get(name):
            return Path(os.environ[name]).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "worldflux"
