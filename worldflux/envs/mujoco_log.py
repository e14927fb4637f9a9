"""MuJoCo's warnings: each once a process, on stderr; no MUJOCO_LOG.TXT in the user's folder."""

from __future__ import annotations

import re
import sys

_told: set[str] = set()


def take_warnings() -> None:
    """Receive the warnings of MuJoCo, where it has been imported."""
    mujoco = sys.modules.get("mujoco")
    if mujoco is not None:
        mujoco.set_mju_user_warning(_tell)


def _tell(text: str) -> None:
    """Print one that is new but for its numbers; deprecations are for authors of environments."""
    kind = re.sub(r"[\d.]+", "", text)
    if kind not in _told and "is deprecated" not in text:
        print(f"mujoco: {text}", file=sys.stderr)
    _told.add(kind)
