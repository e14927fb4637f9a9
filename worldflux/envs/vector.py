"""N environments stepped together, every step told in the project's one time alignment.

Gymnasium's vector environments reset an ended episode on the NEXT step and ignore that step's
action. Here that step is simply the `is_first` row of the next episode: no transition leads to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium import Env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from worldflux.errors import EnvironmentFault

from .actions import environment_actions
from .episode_seeds import REPLAY, EpisodePosition, SeededEpisodes
from .observations import BadValue, ObservationReader
from .spec import EnvironmentSpec, spec_of

Array = NDArray[Any]


@dataclass(frozen=True)
class EnvStep:
    """What N environments told: observations [N, ...], and what came with them, [N] each.

    Observations are an array, or arrays by name where the environment names them.
    """

    obs: Array | dict[str, Array]
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
        limit = None if first.spec is None else first.spec.max_episode_steps
        self.spec: EnvironmentSpec = spec_of(
            env_id, first.observation_space, first.action_space, limit
        )
        self._reader = ObservationReader(env_id, first.observation_space)
        self._action_space = first.action_space
        self.num_envs = num_envs
        others = [partial(make, index) for index in range(1, num_envs)]
        makers = [
            lambda m=m, i=i: SeededEpisodes(m(), i) for i, m in enumerate([lambda: first, *others])
        ]
        self._envs = SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)
        self._ended = np.zeros(num_envs, bool)
        self._step_count = 0

    def reset(self, seed: int) -> EnvStep:
        """Start an episode everywhere; environment i is seeded with `seed + i`.

        Its later episodes are seeded too (`episode_seeds.episode_seed`).
        """
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
        obs, reward, terminated, truncated, _ = self._envs.step(self._given(actions))
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

    def replay(self, seed: int, positions: Sequence[EpisodePosition]) -> tuple[EnvStep, Array]:
        """Play each environment's episode again, up to where it stood after `reset(seed)`.

        Returns:
            What every environment told last, and `[N]` whether all of its actions could be taken;
            whether it told the same as the first time is for the caller to compare.
        """
        played = [(p.episode, self._given(p.actions)) for p in positions]
        obs, told = self._envs.reset(options={REPLAY: (seed, played)})
        ended = told["terminated"] | told["truncated"]
        first = np.array([len(position.actions) == 0 for position in positions])
        self._ended = ended
        reward = told["reward"].astype(np.float32)
        return self._told(obs, reward, first, ended, told["terminated"]), told["complete"]

    def _given(self, actions: Array) -> Array:
        """Actions `[..., A]` as the environments take them."""
        return environment_actions(self._action_space, actions)

    def close(self) -> None:
        """Close every environment."""
        self._envs.close()

    def render_first(self) -> Array:
        """An RGB frame `[H, W, 3]` of environment 0 (its render_mode must be "rgb_array")."""
        return np.asarray(self._first.render())

    def _told(
        self, obs: Any, reward: Array, is_first: Array, is_last: Array, is_terminal: Array
    ) -> EnvStep:
        try:
            named = self._reader.read(obs, self.num_envs)
            finite = np.isfinite(reward)
            if not finite.all():
                raise BadValue(int(np.argmin(finite)), "reward", "is not finite")
        except BadValue as error:
            raise EnvironmentFault(
                f"{self.spec.env_id}: environment {error.row} broke its word at step "
                f"{self._step_count}: {error.key} {error.problem}",
                hint="mend the environment; the replay holds nothing of that step",
            ) from None
        told = named if self.spec.modalities is not None else named[""]
        return EnvStep(told, reward, is_first.copy(), is_last.copy(), is_terminal.copy())
