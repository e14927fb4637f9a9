"""The glossary is what docs/metrics.md shows, and what families log is in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldflux import create_world_model
from worldflux.data.replay import ReplayBuffer
from worldflux.training.callbacks import LoggingCallback
from worldflux.training.config import TrainingConfig
from worldflux.training.trainer import Trainer
from worldflux.training.update import LOGGED_AS

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = json.loads((ROOT / "worldflux/dashboard/static/glossary.json").read_text("utf-8"))


def test_the_documentation_holds_the_same_table() -> None:
    rows = ["| metric | what it is | unit | healthy |", "|---|---|---|---|"]
    for name, metric in GLOSSARY.items():
        rows.append(f"| `{name}` | {metric['meaning']} | {metric['unit']} | {metric['healthy']} |")
    table = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert table.endswith("\n".join(rows) + "\n")


def test_what_is_no_loss_is_not_called_one() -> None:
    assert set(LOGGED_AS.values()) <= set(GLOSSARY)
    assert not [name for name in LOGGED_AS.values() if name.startswith("loss/")]


PROBED = {"representation": "barlow", "probe_decoder": True, "actor_critic": True}


@pytest.mark.parametrize(
    ("name", "fields"),
    [("tdmpc2:ci", {}), ("bmpc:ci", {}), ("dreamerv3:ci", {}), ("dreamerv3:ci", PROBED)],
)
def test_every_metric_of_a_run_is_explained(
    name: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    model = create_world_model(name, obs_shape=(3,), action_dim=2, **fields)
    config = TrainingConfig(total_steps=1, batch_size=4, sequence_length=8, log_interval=1)
    trainer = Trainer(model, config.with_overrides(output_dir=str(tmp_path)))
    trainer.add_callback(LoggingCallback(tmp_path, log_to_console=False))
    buffer = ReplayBuffer(200, (3,), 2)
    generator = np.random.default_rng(0)
    for _ in range(4):
        obs = generator.normal(size=(31, 3)).astype(np.float32)
        actions = generator.uniform(-1, 1, (30, 2)).astype(np.float32)
        buffer.add_episode(obs, actions, np.ones(30, np.float32), np.zeros(30, bool))
    trainer.train(buffer)
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    names = set(row) - {"step", "env_steps", "time", "wall_s"}
    unknown = {name for name in names if not {name, f"{name.split('/')[0]}/*"} & set(GLOSSARY)}
    assert unknown == set()
