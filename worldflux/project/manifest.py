"""`run_manifest.json`: what ran, on what data, how it ended; valid JSON at every moment."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from worldflux import clock
from worldflux.errors import RunFolderError
from worldflux.files import write_json

SCHEMA_VERSION = 1
FILE = "run_manifest.json"
STATUSES = ("running", "completed", "interrupted", "failed")
DATA_MODES = ("random", "offline", "online")
CLASSIFICATIONS = ("contract_smoke", "meaningful_local_training", "advanced_evidence")
DEVICE_FALLBACK = "device_fallback"
_MAX_BYTES = 16 << 20
_PACKAGES = ("worldflux", "torch", "numpy", "gymnasium", "safetensors")


class RunManifest:
    """The manifest of one run folder; every change is written at once and whole."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.path = folder / FILE
        self.content = content

    def update(self, **changes: Any) -> None:
        """Change entries and write the file."""
        self.content.update(changes)
        self.content["updated_at"] = clock.now()
        write_json(self.path, self.content)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        RunFolderError: when there is none, or it is not one of ours.
    """
    path = folder / FILE
    if not path.is_file():
        raise RunFolderError(
            "no run here: run_manifest.json is missing",
            where=str(folder),
            hint="train first (worldflux train), or name the run with --target DIR",
        )
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("larger than 16 MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"run_manifest.json is damaged: {error}", where=str(path)) from None
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise RunFolderError("run_manifest.json is of another version", where=str(path))
    return content


def classification(data_mode: str, degraded_modes: list[str]) -> str:
    """A run counts as training only on real data, with nothing degraded."""
    if data_mode in ("online", "offline") and not degraded_modes:
        return "meaningful_local_training"
    return "contract_smoke"


def config_hash(*configurations: dict[str, Any]) -> str:
    """SHA-256 over configurations, independent of key order."""
    text = json.dumps(configurations, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def machine() -> dict[str, Any]:
    """The machine in words: system, processor, cores. Never names, users or variables."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }


def software() -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers."""
    versions = {"python": sys.version.split()[0]}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions
