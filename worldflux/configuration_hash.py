"""Which runs are of one configuration: the hash that they share, whatever seed and machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# Sections that decide what a run learns, or how it is measured; of these, the keys that do not.
_DECIDING = {
    "environment",
    "environment_kwargs",
    "code",
    "model",
    "start_from",
    "tasks",
    "architecture",
    "training",
    "data",
    "online_collection",
    "evaluation",
    "distributed",
}
_COSMETIC = {
    "training.seed",
    "training.output_dir",
    "training.device",
    "training.compile",
    "training.log_interval",
    "training.log_to",
    "training.save_interval",
    "training.on_unfit_data",
    "training.threads",
    "data.storage",
    "online_collection.processes",
    "online_collection.on_env_error",
    "online_collection.max_restarts",
    "online_collection.step_timeout_s",
    "online_collection.env_resume",
    "distributed.threads",
    "distributed.timeout_s",
}
# Set, they hold for every optimiser of the family, whose recipe has numbers for each.
_WITHOUT_RECIPE = {"learning_rate", "grad_clip", "weight_decay"}

# Settings that a later version added, with what earlier runs did: there they change no hash, so
# that seeds of one configuration are known as such across an upgrade.
LATER: dict[str, Any] = {"data.features": None, "training.precision": "float32"}


def decides_result(key: str) -> bool:
    """Whether two runs that differ in this setting are of two configurations."""
    return key.partition(".")[0] in _DECIDING and key not in _COSMETIC


def flattened(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by `section.key`; what lies deeper stays a value."""
    flat: dict[str, Any] = {}
    for name, value in sections.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{key}": item for key, item in value.items()})
        else:
            flat[name] = value
    return flat


def config_hash(*configurations: Any) -> str:
    """SHA-256 over configurations, independent of key order."""
    text = json.dumps(configurations, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def configuration_hash(manifest: dict[str, Any], left_out: Mapping[str, Any] = LATER) -> str:
    """The hash that runs of one configuration share, whatever their seed, folder and machine.

    It covers every setting that decides what a run learns or how it is measured, the environment's
    code, and what a resumed run changed, and when. Settings `left_out` that have this value do not
    count.
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
        {
            key: value
            for key, value in settings.items()
            if decides_result(key) and (key not in left_out or value != left_out[key])
        },
        manifest["environment"],
        changes,
    )


def configuration_of(manifest: dict[str, Any]) -> str:
    """What groups runs: `configuration_hash` as this version counts it, else what is recorded."""
    try:
        return configuration_hash(manifest)
    except (KeyError, TypeError, ValueError, AttributeError):  # not a whole manifest of ours
        return str(manifest.get("config_hash", ""))


def hash_holds(manifest: dict[str, Any]) -> bool:
    """Whether the recorded hash is that of the configuration next to it.

    Versions that had just got a setting of `LATER` counted it.
    """
    forms = configuration_hash(manifest), configuration_hash(manifest, left_out={})
    return manifest["config_hash"] in forms
