"""A run's settings: all of its manifest, and those that tell it apart from other runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from worldflux.configuration_hash import configuration_of

MAX_TEXT = 300
MAX_ROWS = 500
MAX_DEPTH = 8
MAX_DIFFERENCES = 24
# Of the manifest: what was chosen. The rest is what became of it.
CHOSEN = (
    *("model", "environment", "data_mode", "offline_data", "model_config", "training_config"),
    *("online_collection", "data", "evaluation", "seeds", "device"),
)
# Chosen, but without influence on the result.
INCIDENTAL = ("training_config.output_dir", "training_config.seed", "seeds.evaluation")
SEED = "seeds.run"


def flatten(value: Any, prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """Every value of a manifest as (dotted name, text), in the order of the file."""
    if not isinstance(value, dict) or not value or depth == MAX_DEPTH:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return [(prefix[:MAX_TEXT], text[:MAX_TEXT])]
    rows: list[tuple[str, str]] = []
    for name, item in value.items():
        if len(rows) < MAX_ROWS:
            rows += flatten(item, f"{prefix}.{name}" if prefix else str(name), depth + 1)
    return rows[:MAX_ROWS]


def comparable(manifest: dict[str, Any]) -> dict[str, str]:
    """The chosen settings by dotted name, without those that have no influence."""
    chosen = {name: manifest[name] for name in CHOSEN if name in manifest}
    rows = flatten(chosen) if chosen else []
    return {name: text for name, text in rows if name not in INCIDENTAL}


def group_of(manifest: dict[str, Any]) -> str | None:
    """The same text for runs that differ in nothing but their seed; None without a manifest.

    As `worldflux runs` groups them, but for runs of early versions, or of other programs.
    """
    if "configuration" in manifest:
        return configuration_of(manifest)[:8] or None
    settings = {name: text for name, text in comparable(manifest).items() if name != SEED}
    if not settings:
        return None
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode("ascii")).hexdigest()[:8]


def differences(settings: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Of each run, the settings that are not the same in all of them."""
    names = dict.fromkeys(name for chosen in settings.values() for name in chosen)
    known = [chosen for chosen in settings.values() if chosen]
    differing = [n for n in names if len({chosen.get(n) for chosen in known}) > 1]
    return {
        run: {n: chosen.get(n, "") for n in differing[:MAX_DIFFERENCES]}
        for run, chosen in settings.items()
    }
