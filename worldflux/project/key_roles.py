"""What a setting means to a run that exists: may a resumed run change it, does it decide results.

Keys are `section.key`; a section's name stands for all of its keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WEIGHTS = "the weights have its sizes"
_WORLD = "the replay and the weights belong to it"
_REPLAY = "the replay was recorded with it"
_STATE = "the optimiser's state depends on it"

# Why a resumed run cannot change a setting. Every other one may be changed with --set.
FIXED: dict[str, str] = {
    "project_name": "the folder belongs to this project",
    "environment": _WORLD,
    "environment_kwargs": _WORLD,
    "model": _WEIGHTS,
    "architecture": _WEIGHTS,
    "training.seed": "the random streams continue from the checkpoint",
    "training.optimizer": _STATE,
    "training.weight_decay": _STATE,
    "training.ema_decay": "the averaged weights depend on it",
    "training.model_overrides": _WEIGHTS,
    "training.freeze": _STATE,
    "tasks": _WORLD,
    "start_from": "its weights began from there",
    "training.backend": "another program cannot continue this run",
    "training.backend_profile": "another program cannot continue this run",
    "data.source": _REPLAY,
    "data.dataset": _REPLAY,
    "data.path": _REPLAY,
    "data.features": _REPLAY,
    "data.buffer_capacity": _REPLAY,
    "online_collection.num_envs": "the replay has one stream for each environment",
    "online_collection.warmup_transitions": _REPLAY,
    "online_collection.pretrain": _REPLAY,
    "online_collection.after_offline_updates": _REPLAY,
    "distributed.shards": "each shard has its own replay and random streams",
}

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
    "data.storage",
    "online_collection.processes",
    "online_collection.on_env_error",
    "online_collection.max_restarts",
    "online_collection.step_timeout_s",
    "online_collection.env_resume",
    "distributed.threads",
    "distributed.timeout_s",
}


def why_fixed(key: str) -> str | None:
    """Why a resumed run cannot change this setting; None where it may."""
    return FIXED.get(key) or FIXED.get(key.partition(".")[0])


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
