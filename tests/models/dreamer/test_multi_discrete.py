"""Several discrete actions at once, from a MultiDiscrete environment to learned weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from worldflux.factory import create_world_model
from worldflux.project.run import train_project

DATASET = """
import gymnasium
import numpy as np


class Dials(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.MultiDiscrete([3, 2])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._observe(0, 0), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.time += 1
        return self._observe(*action), float(action[0] == 2), self.time == 6, False, {}

    def _observe(self, first, second):
        return np.array([first / 2, second], np.float32)


def make_env(render_mode=None, environment=None):
    return Dials()
"""
PROJECT = """
project_name = "dials"
environment = "my/Dials-v0"
model = "dreamer:ci"

[training]
total_steps = 3
batch_size = 2
sequence_length = 8
eval_interval = 3
device = "cpu"

[online_collection]
warmup_transitions = 40

[evaluation]
episodes = 2

[gameplay]
enabled = false
"""


def test_a_multi_discrete_environment_is_learned_from_end_to_end(tmp_path: Path) -> None:
    (tmp_path / "worldflux.toml").write_text(PROJECT)
    (tmp_path / "dataset.py").write_text(DATASET)
    outcome = train_project(tmp_path, say=lambda line: None)
    assert outcome.result.step == 3
    model = create_world_model(str(outcome.folder))
    assert [(part.kind, part.width) for part in model.parts] == [("discrete", 3), ("discrete", 2)]
    carry, first = model.initial_carry(5), torch.ones(5, dtype=torch.bool)
    actions, _ = model.policy(torch.zeros(5, 2), carry, first, explore=True)
    assert torch.equal(actions[:, :3].sum(-1), torch.ones(5))
    assert torch.equal(actions[:, 3:].sum(-1), torch.ones(5))
    manifest = json.loads((outcome.folder / "run_manifest.json").read_text())
    assert manifest["model_config"]["action_spec"]["parts"].keys() == {"action_000", "action_001"}
