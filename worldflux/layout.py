"""Names inside a run folder, and the folder for what outlives a project."""

from __future__ import annotations

import os
from pathlib import Path

RUN_MANIFEST = "run_manifest.json"
METRICS = "metrics.jsonl"
EVALUATIONS = "eval.jsonl"
HEARTBEAT = "heartbeat.json"
LOCK = ".lock"
CHECKPOINTS = "checkpoints"
REPLAY = "replay"
SHARD = "shard-{}"  # of the replay, where a run has several
CHECKPOINT_HASHES = "checkpoints.json"  # of evidence that left the checkpoints out
PUBLISHED = "published"  # weights of a learner, for whoever acts meanwhile
VIDEOS = "videos"
PLOTS = "plots"
IMAGINATION = "imagination"
GAMEPLAY = "gameplay"
EXPORTS = "exports"
JOB_LOG = "job.log"  # of a delegated run

# A saved model, which a checkpoint is too.
CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TRUST_FILE = "trust.json"  # of a checkpoint that was calibrated, and trust.safetensors
# What can be done with a saved model that belongs to no run.
SAVED_MODEL_USE = (
    "play it: worldflux eval --model {path} --env ID; train on from it: worldflux train --from "
    '{path}, or model = "{path}" in worldflux.toml'
)

CACHE_VARIABLES = ("WORLDFLUX_CACHE_DIR", "WORLDLOOM_CACHE_DIR")


def cache_folder() -> Path:
    """`WORLDFLUX_CACHE_DIR` (or the older `WORLDLOOM_CACHE_DIR`), else the user's cache folder."""
    for name in CACHE_VARIABLES:
        if os.environ.get(name):
            return Path(os.environ[name]).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "worldflux"
