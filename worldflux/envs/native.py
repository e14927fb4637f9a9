"""A family's own vector form: N environments that its authors step in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from worldflux.errors import EnvironmentSetupError, WorldFluxError

from .actions import environment_actions
from .observations import BadValue, ObservationReader
from .worker import (
    IDLE,
    MAKE,
    PHASES,
    RENDER,
    RESET,
    STEP,
    Broken,
    Position,
    Rows,
    Spaces,
    broken_by,
    frame_of,
)

Array = NDArray[Any]


class NativeEnvironments:
    """A `gymnasium.vector.VectorEnv`, its rows told as those of separate environments.

    One that resets an ended episode on the NEXT step does what `SeparateEnvironments` does. One
    that resets on the SAME step hands over two observations at once, and each needs a row: the end
    is told first, and the call after that tells the beginning without a step. The others then
    repeat their observation with `is_first`: no false transition arises, only a cut in their
    sequence. Any other mode has no contract here.

    Raises:
        EnvironmentSetupError: for another mode.
    """

    def __init__(
        self,
        env_id: str,
        make: Callable[[int], VectorEnv],
        count: int,
        position: Position,
        check_bounds: bool,
    ) -> None:
        position.at(0, MAKE)
        try:
            self._envs = make(count)
        except WorldFluxError:
            raise
        except (Exception, SystemExit) as error:
            raise broken_by(0, "make", error) from None
        self._env_id, self._position, self._count = env_id, position, count
        self._mode = self._envs.metadata.get("autoreset_mode")
        if self._mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise EnvironmentSetupError(
                f"the native vector form of {env_id} has the autoreset mode {self._mode!r}; "
                "worldflux takes NEXT_STEP and SAME_STEP",
                hint='set online_collection.vector = "sync" or "async"',
            )
        space = self._envs.single_observation_space
        spec = self._envs.spec
        limit = None if spec is None else spec.max_episode_steps
        self.spaces = Spaces(space, self._envs.single_action_space, limit)
        self._reader = ObservationReader(env_id, space, check_bounds=check_bounds)
        self._ended = np.zeros(count, bool)
        self._beginning: dict[str, Array] | None = None  # SAME_STEP: told by the next call

    def reset(self, seed: int, max_steps: int | None) -> Rows:
        """Begin an episode everywhere; environment i is seeded with `seed + i`."""
        assert max_steps is None, "a native form cannot cut the episode of one environment"
        obs, _ = self._call(RESET, seed=seed)
        self._beginning = None
        nothing = np.zeros(self._count, bool)
        return self._rows(self._read(obs), np.zeros(self._count), ~nothing, nothing, nothing)

    def step(self, actions: Array) -> Rows:
        """One row of every environment."""
        nothing = np.zeros(self._count, bool)
        if self._beginning is not None:
            obs, self._beginning = self._beginning, None
            return self._rows(obs, np.zeros(self._count), ~nothing, nothing, nothing)
        given = environment_actions(self.spaces.action, actions)
        obs, reward, terminated, truncated, info = self._call(STEP, given)
        told = self._read(obs)
        reward = self._rewards(reward)
        first = self._ended
        ended = (terminated | truncated) & ~first
        if self._mode == AutoresetMode.SAME_STEP and ended.any():
            self._beginning = told
            told = self._with_ends(told, info["final_obs"], ended)
            rows = self._rows(told, reward, nothing, ended, terminated & ended)
            self._ended = nothing  # it has begun again already
            return rows
        return self._rows(told, np.where(first, 0.0, reward), first, ended, terminated & ~first)

    def begin(self, seed: int, max_steps: int | None, episodes: Mapping[int, int]) -> Rows:
        """Begin anew: a native form has no seed of each episode, so nothing can be played again."""
        rows = self.reset(seed + max(episodes.values(), default=0), max_steps)
        return rows._replace(complete=np.zeros(self._count, bool))

    def play(self, actions: Mapping[int, Array]) -> Rows:
        """Never asked, because no episode that `begin` began is complete."""
        raise NotImplementedError

    def render(self) -> Array:
        """An RGB frame `[H, W, 3]` of the first environment.

        Raises:
            EnvironmentSetupError: when it cannot draw; it can be stepped all the same.
        """
        return frame_of(self._env_id, self._envs, lambda: self._first(self._call(RENDER)))

    def _first(self, frames: Any) -> Any:
        return frames[0] if isinstance(frames, tuple | list) and frames else frames

    def close(self) -> None:
        """Close every environment."""
        self._envs.close()

    def _call(self, phase: int, *args: Any, **kwargs: Any) -> Any:
        self._position.at(0, phase)
        envs = self._envs
        functions: dict[int, Callable[..., Any]]
        functions = {RESET: envs.reset, STEP: envs.step, RENDER: envs.render}
        try:
            return functions[phase](*args, **kwargs)
        except (Exception, SystemExit) as error:
            raise broken_by(0, PHASES[phase], error) from None

    def _read(self, obs: Any) -> dict[str, Array]:
        try:
            return self._reader.read(obs, self._count)
        except BadValue as error:
            raise Broken(error.row, error.key, error.problem) from None

    def _rewards(self, reward: Any) -> Array:
        values = np.asarray(reward, np.float64)
        if values.shape != (self._count,):
            raise Broken(0, "reward", f"has shape {values.shape}, expected ({self._count},)")
        if not np.isfinite(values).all():
            index = int(np.argmin(np.isfinite(values)))
            raise Broken(index, "reward", f"is not finite: {values[index]}")
        return values

    def _with_ends(self, told: dict[str, Array], final: Array, ended: Array) -> dict[str, Array]:
        """`told`, with the last observation of the ended episodes in its place."""
        result = {name: values.copy() for name, values in told.items()}
        for index in np.flatnonzero(ended):
            last = final[index]
            batch = (
                {k: np.asarray(v)[None] for k, v in last.items()}
                if isinstance(last, Mapping)
                else np.asarray(last)[None]
            )
            try:
                encoded = self._reader.read(batch, 1)
            except BadValue as error:
                raise Broken(int(index), error.key, error.problem) from None
            for name, value in encoded.items():
                result[name][index] = value[0]
        return result

    def _rows(
        self, obs: dict[str, Array], reward: Array, first: Array, last: Array, terminal: Array
    ) -> Rows:
        self._position.at(0, IDLE)
        self._ended = last
        complete = np.ones(self._count, bool)
        return Rows(obs, reward.astype(np.float32), first, last, terminal, complete)
