"""A run's settings: all of its manifest, and those that tell it apart from other runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

MAX_TEXT = 300
MAX_CONFIGURATION_ROWS = 500
# Of the manifest: what was chosen. The rest is what became of it.
CHOSEN = (
    *("model", "environment", "data_mode", "offline_data", "model_config", "training_config"),
    *("online_collection", "data", "evaluation", "seeds", "device"),
)
# Chosen, but no cause of anything.
INCIDENTAL = ("training_config.output_dir", "training_config.seed", "seeds.evaluation")
SEEDS = ("seeds.run",)
MAX_DIFFERENCES = 24


def flatten(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Every value of the manifest as (dotted name, text), in the order of the file."""
    rows: list[tuple[str, str]] = []
    _flatten_into(rows, "", manifest)
    return rows


def _flatten_into(rows: list[tuple[str, str]], prefix: str, value: Any, depth: int = 0) -> None:
    if len(rows) >= MAX_CONFIGURATION_ROWS:
        return
    if isinstance(value, dict) and value and depth < 8:
        for name, item in value.items():
            _flatten_into(rows, f"{prefix}.{name}" if prefix else str(name), item, depth + 1)
        return
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    rows.append((prefix[:MAX_TEXT], text[:MAX_TEXT]))


def comparable(manifest: dict[str, Any]) -> dict[str, str]:
    """The chosen settings by dotted name, without those that have no influence."""
    chosen = {name: manifest[name] for name in CHOSEN if name in manifest}
    return {name: text for name, text in flatten(chosen) if name not in INCIDENTAL}


def group_of(manifest: dict[str, Any]) -> str | None:
    """The same text for runs that differ in nothing but their seed; None without a manifest."""
    settings = {name: text for name, text in comparable(manifest).items() if name not in SEEDS}
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
