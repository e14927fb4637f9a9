"""What was measured of the presets, for `worldflux models compare`. No torch.

Every row names the section of docs/results.md that says how: measured.json holds nothing else.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

Row = dict[str, Any]


def measured(
    observations: str | None = None,
    actions: str | None = None,
    device: str | None = None,
    minutes: float | None = None,
) -> dict[str, list[Row]]:
    """The rows "learned" and "costs" that fit.

    Args:
        observations: "numbers" or "images".
        actions: "continuous" or "discrete"; a cost that names none is of both.
        device: "cpu" (one thread of a virtual core) or "gpu" (an H200).
        minutes: at most, of the slowest seed.
    """
    asked = {"observations": observations, "actions": actions, "device": device}
    text = resources.files("worldflux.models").joinpath("measured.json").read_text("utf-8")
    return {
        kind: [
            row
            for row in rows
            if all(want is None or row.get(key, want) == want for key, want in asked.items())
            and (minutes is None or row.get("minutes", 0) <= minutes)
        ]
        for kind, rows in json.loads(text).items()
    }
