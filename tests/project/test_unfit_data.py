"""A TD-MPC2 project whose episodes terminate, or whose returns leave the bins: stopped, or said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from worldflux.errors import ConfigurationError
from worldflux.project.run import train_project
from worldflux.verify.integrity import check_data

ENVIRONMENT = """\
import gymnasium as gym
import numpy as np


class Greedy(gym.Env):
    observation_space = gym.spaces.Box(0, 1, (3,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.random(3).astype(np.float32), {}

    def step(self, action):
        self.t += 1
        ends = bool(action[0] > 0.5)
        return self.np_random.random(3).astype(np.float32), 2.0, ends, self.t >= 30, {}


def make_env(render_mode=None):
    return Greedy()
"""
PROJECT = """\
project_name = "greedy"
environment = "custom"
model = "tdmpc2:ci"

[architecture]
horizon = 2
num_samples = 16
num_elites = 4
num_pi_trajs = 4
iterations = 1
vmax = 2.0

[training]
total_steps = 6
batch_size = 8
eval_interval = 6
device = "cpu"

[data]
buffer_capacity = 2000

[online_collection]
warmup_transitions = 120
pretrain = false

[evaluation]
episodes = 1

[gameplay]
enabled = false
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dataset.py").write_text(ENVIRONMENT, encoding="utf-8")
    (tmp_path / "worldflux.toml").write_text(PROJECT, encoding="utf-8")
    return tmp_path


def manifest_of(project: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((project / "outputs" / "run_manifest.json").read_text())
    return content


def train(project: Path, *overrides: str, **how: Any) -> list[str]:
    said: list[str] = []
    train_project(project, overrides=overrides, say=said.append, **how)
    return said


def test_a_run_that_cannot_learn_its_episodes_stops_and_names_the_settings(project: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"terminated(.|\n)*set architecture.episodic = true"
    ):
        train(project)
    assert manifest_of(project)["status"] == "failed"
    assert "terminated" in manifest_of(project)["reason"]
    beyond = r"returns? beyond -22,025\.5 to 6\.4(.|\n)*set architecture.vmax = 6.0, or"
    with pytest.raises(ConfigurationError, match=beyond):
        train(project, "architecture.episodic=true")
    train(project, "architecture.episodic=true", "architecture.vmax=6.0")
    assert manifest_of(project)["status"] == "completed"
    assert not manifest_of(project).get("warnings")
    assert check_data(manifest_of(project)).status == "pass"


def test_a_run_that_continues_all_the_same_says_so_everywhere(project: Path) -> None:
    train(project, "training.on_unfit_data=warn")
    told = [text for text in manifest_of(project)["warnings"] if text.startswith("unfit_data")]
    assert any("episodes terminated" in text for text in told)
    assert any("architecture.vmax = 6.0" in text for text in told)
    check = check_data(manifest_of(project))
    assert check.status == "warn"
    assert "unfit_data" not in check.detail
    train(project, "training.total_steps=8", resume=True)  # it continues as it was started
    assert manifest_of(project)["status"] == "completed"
