"""`train_ratio` means the same wherever batch size and sequence length are written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from worldflux.project.loader import load_project
from worldflux.project.plan import collection_schedule

SIZES: dict[str, tuple[int, int]] = {
    "training.log_interval=10": (16, 32),
    "training.batch_size=4": (4, 32),
    "architecture.batch_size=4": (4, 32),
    "training.sequence_length=9": (16, 8),
    "architecture.batch_length=8": (16, 8),
}


@pytest.mark.parametrize("override", SIZES)
def test_replayed_steps_for_each_environment_step(tmp_path: Path, override: str) -> None:
    text = 'project_name = "p"\nenvironment = "Acrobot-v1"\nmodel = "dreamerv3:laptop"\n'
    (tmp_path / "worldflux.toml").write_text(text, encoding="utf-8")
    project = load_project(tmp_path, [override])
    config = project.model_config(obs_shape=(6,), action_dim=3, action_type="discrete")
    schedule = collection_schedule(project, cast("Any", SimpleNamespace(config=config)))
    batch, learned = SIZES[override]
    assert batch * learned / schedule.steps_per_update == pytest.approx(64)
