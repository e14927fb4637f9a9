"""Which settings a resumed run may change, and why not the others.

Keys are `section.key`; a section's name stands for all of its keys.
"""

from __future__ import annotations

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


def why_fixed(key: str) -> str | None:
    """Why a resumed run cannot change this setting; None where it may."""
    return FIXED.get(key) or FIXED.get(key.partition(".")[0])
