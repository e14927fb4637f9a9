"""Every kind of environment with every family, really stepped and trained.

    python tests/envs/matrix.py [UPDATES [NAME...]]   200 updates by default; one line a pair

`test_matrix.py` runs the same pairs with 6 updates.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError
from worldflux.project.run import train_project

LONG_UPDATES = 200

# The user's own environment, next to worldflux.toml.
OWN_MODULE = '''
import gymnasium
import numpy as np
from gymnasium import spaces


class Spring(gymnasium.Env):
    """A mass on a spring, pushed; observed as the kind asks for."""

    def __init__(self, kind="vector", stiffness=1.0):
        self.kind, self.stiffness = kind, stiffness
        vector = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        image = spaces.Box(0, 255, (64, 64, 3), np.uint8)
        named = {"camera": image, "state": vector, "side": spaces.Discrete(2)}
        self.observation_space = spaces.Dict(named) if kind == "dict" else vector
        push = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.action_space = spaces.MultiDiscrete([3, 2]) if kind == "multidiscrete" else push

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        push = float(action[0]) - 1.0 if self.kind == "multidiscrete" else float(action[0])
        place, speed = self.state
        speed = speed + 0.1 * (push - self.stiffness * place)
        self.state = np.array([place + 0.1 * speed, speed], np.float32)
        return self.observe(), -abs(float(place)), abs(float(place)) > 5, False, {}

    def observe(self):
        if self.kind != "dict":
            return self.state
        image = np.zeros((64, 64, 3), np.uint8)
        image[:, int(np.clip(32 + 10 * self.state[0], 0, 63))] = 255
        return {"camera": image, "state": self.state, "side": int(self.state[0] > 0)}


gymnasium.register("Spring-v0", Spring, max_episode_steps=40)
'''

DREAMER, TDMPC2, BMPC = "dreamer:ci", "tdmpc2:ci", "bmpc:ci"
PROJECT = """
project_name = "matrix"
environment = {environment}
model = {model}

[environment_kwargs]
{kwargs}

[architecture]
{architecture}

[training]
total_steps = {updates}
batch_size = 4
eval_interval = {updates}
save_interval = {updates}
log_interval = 10
device = "cpu"

[data]
buffer_capacity = 2000

[online_collection]
num_envs = 2
vector = {vector}
warmup_transitions = 60
pretrain = false
collect_steps_per_update = 1

[evaluation]
episodes = 1
max_episode_steps = 40

[gameplay]
enabled = false
"""
SMALL = {
    DREAMER: "batch_length = 8\nimagination_horizon = 3",
    TDMPC2: "horizon = 2\nnum_samples = 16\nnum_elites = 4\nnum_pi_trajs = 2\niterations = 1",
}


@dataclass(frozen=True)
class Case:
    """One environment; `refused` says with which words a family refuses it."""

    name: str
    environment: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    vector: str = "sync"


SMALL[BMPC] = f"{SMALL[TDMPC2]}\nreanalyze_interval = 2"
DISCRETE = {TDMPC2: "continuous", BMPC: "continuous"}
CASES = [
    Case("cartpole", "CartPole-v1", refused=DISCRETE),
    Case("cartpole native", "CartPole-v1", refused=DISCRETE, vector="native"),
    Case("cartpole pixels", "CartPole-v1", {"pixels": True}, DISCRETE),
    Case("pendulum", "Pendulum-v1", vector="async"),
    Case("halfcheetah", "HalfCheetah-v5", {"max_episode_steps": 40}),
    Case("dm_control state", "dm_control/cartpole-swingup-v0", {"max_episode_steps": 40}),
    Case(
        "dm_control pixels",
        "dm_control/cartpole-swingup-v0",
        {"max_episode_steps": 40, "pixels": True, "frame_stack": 3},
    ),
    Case("pong", "ALE/Pong-v5", {"max_episode_steps": 400}, DISCRETE),
    Case(
        "dict",
        "springs:Spring-v0",
        {"kind": "dict"},
        {TDMPC2: "one observation", BMPC: "one observation"},
    ),
    Case("multidiscrete", "springs:Spring-v0", {"kind": "multidiscrete"}, DISCRETE),
    Case("own module", "springs:Spring-v0", {"stiffness": 2.0}),
]


def train(case: Case, model: str, updates: int, root: Path) -> dict[str, Any]:
    """Train one pair in the folder `root`; returns the run's manifest.

    Raises:
        ConfigurationError: when the family refuses the environment.
    """
    (root / "springs.py").write_text(OWN_MODULE)
    text = PROJECT.format(
        environment=json.dumps(case.environment),
        model=json.dumps(model),
        kwargs="\n".join(f"{name} = {json.dumps(value)}" for name, value in case.kwargs.items()),
        architecture=SMALL[model],
        updates=updates,
        vector=json.dumps(case.vector),
    )
    (root / "worldflux.toml").write_text(text)
    outcome = train_project(root, say=lambda line: None)
    assert all(map(math.isfinite, outcome.result.metrics.values())), outcome.result.metrics
    manifest: dict[str, Any] = json.loads((outcome.folder / "run_manifest.json").read_text())
    return manifest


def main() -> None:
    updates = int(sys.argv[1]) if len(sys.argv) > 1 else LONG_UPDATES
    only = sys.argv[2:]
    for case in [c for c in CASES if not only or c.name in only]:
        for model in (DREAMER, TDMPC2, BMPC):
            began = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder:
                try:
                    manifest = train(case, model, updates, Path(folder))
                except ConfigurationError as error:
                    told = f"does not apply: {error.message}"
                else:
                    seconds = time.perf_counter() - began
                    told = (
                        f"{manifest['global_step']} updates, {manifest['env_steps']} environment "
                        f"steps, {seconds:.0f} s"
                    )
            print(f"{case.name:18} {model:11} {told}", flush=True)


if __name__ == "__main__":
    main()
