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

from worldflux import alpha, clock
from worldflux.errors import RunFolderError
from worldflux.files import write_json

from .key_roles import decides_result, flattened

SCHEMA_VERSION = 1
FILE = "run_manifest.json"
DEVICE_FALLBACK = "device_fallback"
_MAX_BYTES = 16 << 20
# What can be done with a saved model that belongs to no run.
SAVED_MODEL_USE = (
    'open it from Python: create_world_model("{path}") acts (policy) and learns (Trainer)'
)
_PACKAGES = ("worldflux", "torch", "numpy", "gymnasium", "safetensors")
# Set, they hold for every optimiser of the family, whose recipe has numbers for each.
_WITHOUT_RECIPE = {"learning_rate", "grad_clip", "weight_decay"}
_SIMULATORS = (
    *("mujoco", "dm-control", "ale-py", "minari", "box2d", "box2d-py", "pygame", "minigrid"),
    *("gymnasium-robotics", "metaworld", "highway-env", "pybullet", "crafter", "shimmy"),
)


class RunManifest:
    """The manifest of one run folder; every change is written at once and whole.

    Nothing is written before `begin`, so that a start that is refused leaves the folder as it was.
    """

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.path = folder / FILE
        self.content = content
        self.begun = False

    def begin(self, at_update: int = 0) -> None:
        """Write the file, from now on with every update; the run begins at this gradient update."""
        if "sessions" in self.content:
            self.content["sessions"][-1]["from_update"] = at_update
        self.begun = True
        self.update(config_hash=configuration_hash(self.content))

    def update(self, **changes: Any) -> None:
        """Change entries and, once begun, write the file."""
        self.content.update(changes)
        self.content["run_classification"] = classification(self.content)
        self.content["updated_at"] = clock.now()
        if self.content.get("sessions"):
            is_over = self.content["status"] != "running"
            self.content["sessions"][-1].update(
                status=self.content["status"],
                to_update=self.content["global_step"],
                ended_at=self.content["updated_at"] if is_over else None,
            )
        if self.begun:
            write_json(self.path, self.content)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        RunFolderError: when there is none, or it is not one of ours.
    """
    path = folder / FILE
    if not path.is_file():
        message = "no run here: run_manifest.json is missing"
        hint = "train first (worldflux train), or name the run with --target DIR"
        if (folder / "config.json").is_file():
            message = "a saved model, not a run: it names no environment to play in"
            hint = SAVED_MODEL_USE.format(path=folder)
        raise RunFolderError(message, where=str(folder), hint=hint)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError("larger than 16 MiB")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunFolderError(f"run_manifest.json is damaged: {error}", where=str(path)) from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version == alpha.MANIFEST_VERSION:
        hint = alpha.TRAIN_AGAIN
        raise RunFolderError(f"{alpha.ALPHA} wrote this run", where=str(path), hint=hint)
    if version != SCHEMA_VERSION:
        raise RunFolderError("run_manifest.json is of another version", where=str(path))
    return content


def classification(manifest: dict[str, Any]) -> str:
    """A run counts as training only when it learned from real data, with nothing degraded.

    Online, the agent itself must have acted: random steps of the warm-up alone are no such data.
    """
    mode = manifest["data_mode"]
    if mode not in ("online", "offline") or manifest["degraded_modes"]:
        return "contract_smoke"
    if "configuration" in manifest:  # what earlier versions wrote does not tell the warm-up
        warmup = manifest["configuration"]["online_collection"]["warmup_transitions"] or 0
        acted = mode == "offline" or manifest["env_steps"] > warmup
        if not acted or manifest["global_step"] < 1:
            return "contract_smoke"
    return "meaningful_local_training"


def config_hash(*configurations: Any) -> str:
    """SHA-256 over configurations, independent of key order."""
    text = json.dumps(configurations, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def configuration_hash(manifest: dict[str, Any]) -> str:
    """The hash that runs of one configuration share, whatever their seed, folder and machine.

    It covers every setting that decides what a run learns or how it is measured, the environment's
    code, and what a resumed run changed, and when.
    """
    if "configuration" not in manifest:  # of an earlier version
        return config_hash(manifest["model_config"], manifest["training_config"])
    training = {**manifest["training_config"], **manifest["resolved_training"]}
    chosen = _WITHOUT_RECIPE & manifest["settings"].get("training", {}).keys()
    settings = flattened(
        {
            **manifest["configuration"],
            "architecture": manifest["model_config"],
            "training": {**training, "chosen": sorted(chosen)},
        }
    )
    changes = [
        [session["from_update"], key, new]
        for session in manifest["sessions"]
        for key, (_, new) in sorted(session["changed"].items())
        if decides_result(key)
        and (key != "training.total_steps" or training["scheduler"] != "none")
    ]
    return config_hash(
        {key: value for key, value in settings.items() if decides_result(key)},
        manifest["environment"],
        changes,
    )


def machine() -> dict[str, Any]:
    """The machine in words: system, processor, cores. Never names, users or variables."""
    return {
        "system": platform.system(),
        "release": platform.release(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
    }


def software() -> dict[str, str]:
    """Versions of Python, of the packages that decide the numbers, and of simulators."""
    versions = {"python": sys.version.split()[0]}
    for name in (*_PACKAGES, *_SIMULATORS):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            if name in _PACKAGES:
                versions[name] = "not installed as a package"
    return versions
