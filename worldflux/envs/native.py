"""A family's own vector form: N environments that its authors step in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from worldflux.errors import EnvironmentSetupError, WorldFluxError

from .actions import environment_actions
from .faults import broken_by
from .observations import ObservationReader
from .returned import FLOAT32_MAX, BadValue, bad_number, values_of
from .worker import (
    IDLE,
    MAKE,
    PHASES,
    RENDER,
    RESET,
    STEP,
    Position,
    Rows,
    Spaces,
    close,
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
        self.spaces = Spaces.of(
            space, self._envs.single_action_space, self._envs.spec, self._envs.metadata
        )
        self._reader = ObservationReader(env_id, space, check_bounds=check_bounds)
        self._ended = np.zeros(count, bool)
        self._beginning: dict[str, Array] | None = None  # SAME_STEP: told by the next call

    def reset(self, seed: int, max_steps: int | None) -> Rows:
        """Begin an episode everywhere; environment i is seeded with `seed + i`."""
        assert max_steps is None, "a native form cannot cut the episode of one environment"
        returned = self._call(RESET, seed=seed)
        with self._held():
            obs, _ = values_of("reset", returned, 2)
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
        returned = self._call(STEP, given)
        with self._held():
            obs, reward, terminated, truncated, info = values_of("step", returned, 5)
            terminated = self._column("terminated", terminated, np.bool_)
            truncated = self._column("truncated", truncated, np.bool_)
            reward = self._column("reward", reward, np.float64)
            refused = np.flatnonzero(~(abs(reward) <= FLOAT32_MAX))  # NaN too
            if len(refused):
                raise bad_number(int(refused[0]), reward[refused[0]])
        told = self._read(obs)
        first = self._ended
        ended = (terminated | truncated) & ~first
        if self._mode == AutoresetMode.SAME_STEP and ended.any():
            self._beginning = told
            told = self._with_ends(told, info, ended)
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
        close(self._env_id, self._envs)

    def _call(self, phase: int, *args: Any, **kwargs: Any) -> Any:
        self._position.at(0, phase)
        name = PHASES[phase]
        try:
            return getattr(self._envs, name)(*args, **kwargs)
        except (Exception, SystemExit) as error:
            raise broken_by(0, name, error, getattr(self._envs.unwrapped, name, None)) from None

    @contextmanager
    def _held(self, first: int = 0) -> Iterator[None]:
        """Blames the environment of the row that is wrong, counted from `first`."""
        try:
            yield
        except BadValue as error:
            raise broken_by(first + error.row, error.key, error) from None

    def _read(self, obs: Any) -> dict[str, Array]:
        with self._held():
            return self._reader.read(obs, self._count)

    def _column(self, key: str, values: Any, dtype: Any) -> Array:
        """`[N]`, one value of each environment; each may be an array of one."""
        try:
            column = np.asarray(values, dtype)
        except (TypeError, ValueError) as error:
            raise BadValue(0, key, f"is no array of {np.dtype(dtype)}: {error}") from None
        if column.size != self._count:
            raise BadValue(0, key, f"has shape {column.shape}, expected ({self._count},)")
        return column.ravel()

    def _with_ends(self, told: dict[str, Array], info: Any, ended: Array) -> dict[str, Array]:
        """`told`, with the last observation of the ended episodes in its place."""
        result = {name: values.copy() for name, values in told.items()}
        for index in np.flatnonzero(ended):
            with self._held(int(index)):
                if "final_obs" not in info:
                    raise BadValue(0, "step", 'has no "final_obs" in its info')
                for name, value in self._reader.read_one(info["final_obs"][index]).items():
                    result[name][index] = value[0]
        return result

    def _rows(
        self, obs: dict[str, Array], reward: Array, first: Array, last: Array, terminal: Array
    ) -> Rows:
        self._position.at(0, IDLE)
        self._ended = last
        yes = np.ones(self._count, bool)
        return Rows(obs, reward.astype(np.float32), first, last, terminal, yes, ~yes)
