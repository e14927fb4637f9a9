"""Noise in place of data: enough to run code where there is no environment, never to learn from."""

from __future__ import annotations

import numpy as np

from worldflux.data.replay import ReplayBuffer
from worldflux.envs.spec import EnvironmentSpec


def create_random_buffer(
    capacity: int = 10_000,
    obs_shape: tuple[int, ...] = (3, 64, 64),
    action_dim: int = 6,
    num_episodes: int = 100,
    episode_length: int = 100,
    seed: int | None = None,
) -> ReplayBuffer:
    """A replay of at most `num_episodes` episodes of noise with continuous actions.

    Raises:
        ConfigurationError: for a capacity or a size that cannot be.
    """
    buffer = ReplayBuffer(capacity, obs_shape, action_dim)
    spec = EnvironmentSpec("noise", obs_shape, action_dim, "continuous", None)
    rows = num_episodes * (episode_length + 1)
    fill_with_noise(buffer, spec, rows, seed, episode_length)
    return buffer


def fill_with_noise(
    buffer: ReplayBuffer,
    spec: EnvironmentSpec,
    rows: int,
    seed: int | None,
    episode_steps: int = 50,
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


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) == 4:
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(np.float32)
