"""Noise in place of data, to try code with."""

from __future__ import annotations

from worldflux.data.random_data import fill_with_noise
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
