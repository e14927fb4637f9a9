"""N environments stepped together, every step told in the project's one time alignment.

Gymnasium's vector environments reset an ended episode on the NEXT step and ignore that step's
action. Here that step is simply the `is_first` row of the next episode: no transition leads to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Env, spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import RescaleAction
from numpy.typing import NDArray

from worldflux.errors import EnvironmentFault

from .spec import EnvironmentSpec, is_channels_last_image, spec_of

Array = NDArray[Any]


@dataclass(frozen=True)
class EnvStep:
    """What N environments told: observations [N, ...], and what came with them, [N] each."""

    obs: Array
    reward: Array
    is_first: Array
    is_last: Array
    is_terminal: Array


class VectorEnvironment:
    """N copies of one environment behind one contract (see `EnvironmentSpec`).

    Args:
        env_id: name for messages.
        make: builds environment number i.
        num_envs: how many.
    """

    def __init__(self, env_id: str, make: Callable[[int], Env], num_envs: int) -> None:
        first = make(0)
        self._first = first
        self.spec: EnvironmentSpec = spec_of(env_id, first)
        self._image = is_channels_last_image(first.observation_space)
        self._discrete = isinstance(first.action_space, spaces.Discrete)
        self._action_start = int(getattr(first.action_space, "start", 0))
        self.num_envs = num_envs
        others = [partial(make, index) for index in range(1, num_envs)]
        makers = [lambda: _scaled(first), *(lambda m=m: _scaled(m()) for m in others)]
        self._envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._ended = np.zeros(num_envs, bool)
        self._step_count = 0

    def reset(self, seed: int) -> EnvStep:
        """Start an episode everywhere; environment i is seeded with `seed + i`."""
        obs, _ = self._envs.reset(seed=seed)
        self._ended = np.zeros(self.num_envs, bool)
        nothing = np.zeros(self.num_envs, bool)
        reward = np.zeros(self.num_envs, np.float32)
        return self._told(obs, reward, ~nothing, nothing, nothing)

    def step(self, actions: Array) -> EnvStep:
        """Act with `[N, A]` in [-1, 1] (or one-hot rows); ended environments begin anew.

        Raises:
            EnvironmentFault: naming the environment and step that returned a non-finite value.
        """
        self._step_count += 1
        if self._discrete:
            given = actions.argmax(-1).astype(np.int64) + self._action_start
        else:
            given = np.clip(actions, -1.0, 1.0).astype(np.float32)
        obs, reward, terminated, truncated, _ = self._envs.step(given)
        first = self._ended
        ended = (terminated | truncated) & ~first
        step = self._told(
            obs,
            np.where(first, 0.0, reward).astype(np.float32),
            first,
            ended,
            terminated & ~first,
        )
        self._ended = ended
        return step

    def close(self) -> None:
        """Close every environment."""
        self._envs.close()

    def render_first(self) -> Array:
        """An RGB frame `[H, W, 3]` of environment 0 (its render_mode must be "rgb_array")."""
        return np.asarray(self._first.render())

    def _told(
        self, obs: Array, reward: Array, is_first: Array, is_last: Array, is_terminal: Array
    ) -> EnvStep:
        if self._image:
            obs = np.ascontiguousarray(obs.transpose(0, 3, 1, 2))
        elif len(self.spec.obs_shape) == 1:
            obs = obs.reshape(self.num_envs, -1).astype(np.float32)
        for name, values in (("observation", obs), ("reward", reward)):
            finite = np.isfinite(values.reshape(self.num_envs, -1)).all(axis=1)
            if not finite.all():
                index = int(np.argmin(finite))
                raise EnvironmentFault(
                    f"{self.spec.env_id} returned a non-finite {name} in environment {index} at "
                    f"step {self._step_count}",
                    hint="mend the environment; the replay holds nothing of that step",
                )
        return EnvStep(obs, reward, is_first.copy(), is_last.copy(), is_terminal.copy())


def _scaled(env: Env) -> Env:
    if not isinstance(env.action_space, spaces.Box):
        return env
    low, high = np.float32(-1.0), np.float32(1.0)
    return RescaleAction(env, low, high)
