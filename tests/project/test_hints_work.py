"""What a refused project is told to change is tried on that very project, and it trains."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from worldflux.errors import ConfigurationError
from worldflux.project.run import train_project

PROJECT = """
project_name = "hints"
environment = "custom"
model = "tdmpc2:ci"
[architecture]
num_samples = 16
num_elites = 4
num_pi_trajs = 2
iterations = 1
[training]
total_steps = 2
batch_size = 4
eval_interval = 2
device = "cpu"
[data]
buffer_capacity = 500
[online_collection]
warmup_transitions = 30
pretrain = false
[evaluation]
episodes = 1
[gameplay]
enabled = false
"""
DATASET = """
import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple


class World(gymnasium.Env):
    observation_space = {observation}
    action_space = {action}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {{}}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), 0.0, False, self.t >= {length}, {{}}


def make_env(render_mode=None):
    env = World()
    {line}
    return env
"""
VECTOR, PUSH = "Box(-1, 1, (3,))", "Box(-1, 1, (2,))"
IMAGE = "Box(0, 255, (3, 84, 96), np.uint8)"
CASES = {
    "goals, text, mixed actions, short episodes": (
        f"Dict(a={VECTOR}, goal=Box(-1, 1, (1,)), mission=Text(9))",
        "Dict(what=Discrete(3), where=Box(-np.inf, np.inf, (2,)))",
        2,
    ),
    "a nested camera that sees too much": (f"Dict(a=Tuple([{IMAGE}, {VECTOR}]))", PUSH, 20),
}


@pytest.mark.parametrize("name", CASES)
def test_the_hints_lead_to_a_run(name: str, tmp_path: Path) -> None:
    observation, action, length = CASES[name]
    (tmp_path / "worldflux.toml").write_text(PROJECT)
    lines, overrides = ["pass"], []
    for number in range(6):
        chosen = {"observation": observation, "action": action, "length": length}
        (tmp_path / "dataset.py").write_text(DATASET.format(**chosen, line="\n    ".join(lines)))
        hint = refusal(tmp_path, [*overrides, f"training.output_dir=out{number}"])
        if hint is None:
            assert number > 0  # it was refused at first
            return
        wrapper = re.search(r"in make_env of dataset.py: (env = .*)", hint)
        setting = re.search(r"--set (\S+)|set (environment_kwargs\.\w+ = \d+)", hint)
        if wrapper:
            lines.append(wrapper[1])
        elif setting:
            overrides.append((setting[1] or setting[2]).replace(" ", ""))
        else:
            pytest.fail(f"no way out: {hint}")
    pytest.fail("the hints go round in a circle")


def refusal(project: Path, overrides: list[str]) -> str | None:
    """The hint of a project that is refused; None where it trains."""
    try:
        train_project(project, overrides=overrides, say=lambda line: None)
    except ConfigurationError as error:
        return re.sub(r" \((or choose|in Python).*", "", error.hint or "")
    return None
