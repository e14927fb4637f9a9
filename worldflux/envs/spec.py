"""What an environment looks like from inside a run: one observation and one action contract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from gymnasium import Env, spaces

from worldflux.errors import EnvironmentSetupError


@dataclass(frozen=True)
class EnvironmentSpec:
    """The contract of one environment.

    Images have shape (C, H, W) and dtype uint8, vectors float32. Continuous actions are in
    [-1, 1] and are rescaled to the environment's own bounds; discrete ones are one-hot rows.
    `time_limit` is in agent steps, None where the environment has none.
    """

    env_id: str
    obs_shape: tuple[int, ...]
    action_dim: int
    action_type: Literal["continuous", "discrete"]
    time_limit: int | None


def spec_of(env_id: str, env: Env) -> EnvironmentSpec:
    """Read the contract off an environment.

    Raises:
        EnvironmentSetupError: when the observation or action space has no contract here.
    """
    registered = env.spec
    return EnvironmentSpec(
        env_id=env_id,
        obs_shape=_observation_shape(env_id, env.observation_space),
        action_dim=_action_dim(env_id, env.action_space),
        action_type="discrete" if isinstance(env.action_space, spaces.Discrete) else "continuous",
        time_limit=None if registered is None else registered.max_episode_steps,
    )


def is_channels_last_image(space: spaces.Space) -> bool:
    """Whether observations are uint8 images of shape (H, W, C)."""
    return (
        isinstance(space, spaces.Box)
        and space.dtype == np.uint8
        and len(space.shape) == 3
        and space.shape[-1] in (1, 3, 4)
    )


def _observation_shape(env_id: str, space: spaces.Space) -> tuple[int, ...]:
    if not isinstance(space, spaces.Box):
        raise EnvironmentSetupError(
            f"{env_id} observes a {type(space).__name__} space; worldflux takes Box observations",
            hint="wrap it with gymnasium.wrappers.FlattenObservation in make_env of dataset.py",
        )
    if is_channels_last_image(space):
        height, width, channels = space.shape
        return (channels, height, width)
    if len(space.shape) == 3:
        return tuple(space.shape)
    return (int(np.prod(space.shape)) or 1,)


def _action_dim(env_id: str, space: spaces.Space) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
            raise EnvironmentSetupError(
                f"{env_id} has actions without finite bounds; worldflux rescales [-1, 1] to them"
            )
        return int(space.shape[0])
    raise EnvironmentSetupError(
        f"{env_id} takes {type(space).__name__} actions; worldflux takes a flat Box or Discrete"
    )
