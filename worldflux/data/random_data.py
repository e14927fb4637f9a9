"""A replay of noise: enough to run the code where there is no environment, never to learn from."""

from __future__ import annotations

import numpy as np

from worldflux.envs.spec import EnvironmentSpec

from .columns import Array
from .replay import ReplayBuffer

_EPISODE_STEPS = 50


def fill_with_noise(
    buffer: ReplayBuffer,
    spec: EnvironmentSpec,
    rows: int,
    seed: int | None,
    episode_steps: int = _EPISODE_STEPS,
) -> None:
    """Append episodes of random steps to a one-stream buffer, until `rows` rows are held."""
    rng = np.random.default_rng(seed)
    steps = min(episode_steps, buffer.rows_per_env - 1)
    while len(buffer) < min(rows, buffer.capacity - steps):
        shapes = spec.modalities or {"": spec.obs_shape}
        noise = {name: _noise(rng, (steps + 1, *shape)) for name, shape in shapes.items()}
        obs = noise if spec.modalities else noise[""]
        actions = spec.random_actions(rng, steps)
        rewards = rng.standard_normal(steps).astype(np.float32)
        done = np.zeros(steps, bool)
        done[-1] = True
        buffer.add_episode(obs, actions, rewards, done, truncations=done)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    if len(shape) == 4:
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(np.float32)
