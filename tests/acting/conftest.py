"""Runs that the tests of this room share: their agents act, and have learned next to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldflux.project.run import train_project

SETTINGS = """
[training]
total_steps = 2
batch_size = 2
save_interval = 1
device = "cpu"
{training}

[data]
buffer_capacity = 500

[online_collection]
warmup_transitions = 40
pretrain = false

[evaluation]
episodes = 0
max_episode_steps = 30

[gameplay]
enabled = false
"""
TDMPC2 = "[architecture]\nhorizon = 2\nnum_samples = 16\nnum_elites = 4\nnum_pi_trajs = 2\n"
STACKED = "[environment_kwargs]\nimage_size = 32\nframe_stack = 2\n"
DREAMERV3 = "sequence_length = 4"
# Name -> environment, model, its section, of [training].
PROJECTS = {
    "pendulum": ("Pendulum-v1", "tdmpc2:ci", TDMPC2, ""),
    "cartpole": ("CartPole-v1", "dreamerv3:ci", "", DREAMERV3),
    "catch": ("worldflux/Catch-v0", "dreamerv3:ci", "", DREAMERV3),
    "stacked": ("worldflux/Catch-v0", "dreamerv3:ci", STACKED, DREAMERV3),
    "walker": ("Walker-v0", "dreamerv3:ci", "", DREAMERV3),
}
# Named observations of several kinds, several actions at once, and an end.
DATASET = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Walker(gymnasium.Env):
    observation_space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (16, 16, 3), np.uint8),
            "joints": spaces.Box(-5.0, 5.0, (2,), np.float64),
            "mode": spaces.Discrete(3, start=2),
        }
    )
    action_space = spaces.MultiDiscrete([3, 2])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.joints, self.count = self.np_random.uniform(-1, 1, 2), 0
        return self.observed(), {}

    def step(self, action):
        assert action in self.action_space
        self.count += 1
        self.joints = np.clip(self.joints + (action - 1) * 0.1, -5, 5)
        return self.observed(), float(action[0]), self.count == 12, False, {}

    def observed(self):
        camera = np.full((16, 16, 3), self.count * 20, np.uint8)
        return {"camera": camera, "joints": self.joints, "mode": 2 + self.count % 3}


def make_env(render_mode=None):
    return Walker()
"""


@pytest.fixture(scope="session")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of each trained project by its name."""
    found = {}
    for name, (environment, model, architecture, training) in PROJECTS.items():
        found[name] = root = tmp_path_factory.mktemp(name)
        top = f'project_name = "{name}"\nenvironment = "{environment}"\nmodel = "{model}"\n'
        text = top + architecture + SETTINGS.format(training=training)
        (root / "worldflux.toml").write_text(text)
        if name == "walker":
            (root / "dataset.py").write_text(DATASET)
        train_project(root, say=lambda line: None)
    return found
