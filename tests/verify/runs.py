"""Run folders made by hand: as `worldflux train` leaves them, with returns of the test's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldflux.configuration_hash import config_hash
from worldflux.core.config import TDMPC2Config
from worldflux.files import sha256_of
from worldflux.layout import RUN_MANIFEST
from worldflux.project import manifest as manifests
from worldflux.training.checkpoints import CheckpointStore
from worldflux.training.config import TrainingConfig


def make_run(
    folder: Path,
    seed: int,
    points: Sequence[tuple[int, float]],
    *,
    environment: str = "dm_control/walker-walk-v0",
    time_limit: int = 500,
    frames_per_env_step: int | None = None,
    random: float | None = 30.0,
    environment_entry: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A completed run with evaluation returns at these agent steps."""
    folder.mkdir(parents=True)
    last = max(step for step, _ in points)
    store = CheckpointStore(folder / "checkpoints")
    path = store.save(last, lambda place: (place / "model.safetensors").write_bytes(b"w") and None)
    model = TDMPC2Config(obs_shape=(24,), action_dim=6).to_dict()
    training = TrainingConfig(total_steps=last, seed=seed).to_dict()
    content = {
        "schema_version": manifests.SCHEMA_VERSION,
        "status": "completed",
        "project_name": "made",
        "run_classification": "meaningful_local_training",
        "data_mode": "online",
        "degraded_modes": [],
        "model": "tdmpc2:5m",
        "parameters": 1,
        "model_config": model,
        "training_config": training,
        "environment": environment_entry or {"id": environment, "time_limit": time_limit},
        "seeds": {"run": seed},
        "global_step": last,
        "env_steps": last,
        "best": None,
        "random_return_mean": random,
        "machine": {},
        "software": {},
        "final_checkpoint": path.name,
        "weights_sha256": sha256_of(path / "model.safetensors"),
        **changes,
    }
    if frames_per_env_step is not None:
        content["environment"]["frames_per_env_step"] = frames_per_env_step
    configurations = (content["model_config"], content["training_config"])
    content.setdefault("config_hash", config_hash(*configurations))
    (folder / RUN_MANIFEST).write_text(json.dumps(content))
    rows = [{"step": x, "env_steps": x, "return_mean": y, "episodes": 10} for x, y in points]
    (folder / "eval.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
