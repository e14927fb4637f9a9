"""A replay of noise: enough to run the code where there is no environment, never to learn from."""

from __future__ import annotations

import numpy as np

from worldflux.envs.spec import EnvironmentSpec

from .replay import ReplayBuffer

_EPISODE_STEPS = 50


def fill_with_noise(buffer: ReplayBuffer, spec: EnvironmentSpec, rows: int, seed: int) -> None:
    """Append episodes of 50 random steps to a one-stream buffer, until `rows` rows are held."""
    rng = np.random.default_rng(seed)
    steps = min(_EPISODE_STEPS, buffer.rows_per_env - 1)
    while len(buffer) < min(rows, buffer.capacity - steps):
        if len(spec.obs_shape) == 3:
            obs = rng.integers(0, 256, (steps + 1, *spec.obs_shape)).astype(np.uint8)
        else:
            obs = rng.standard_normal((steps + 1, *spec.obs_shape)).astype(np.float32)
        actions = spec.random_actions(rng, steps)
        rewards = rng.standard_normal(steps).astype(np.float32)
        done = np.zeros(steps, bool)
        done[-1] = True
        buffer.add_episode(obs, actions, rewards, done, truncations=done)
