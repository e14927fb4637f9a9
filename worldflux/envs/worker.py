"""The environments inside an environment process: checked, step by step, and where they are.

An ended episode begins again on the NEXT step, whose action is not used.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from gymnasium import Env, Space
from gymnasium.vector import AutoresetMode, VectorEnv

from worldflux.errors import EnvironmentSetupError, WorldFluxError

from .action_mask import mask_widths, require_choice
from .actions import action_layout, environment_actions
from .episode_seeds import EPISODE, SeededEpisodes
from .faults import (
    RAISED,
    Failure,
    blamed_on,
    check_rewards,
    checked_environment,
    close_environment,
    failure_of,
    flag,
    number,
    values_of,
)
from .observations import ObservationReader
from .requirements import take_mujoco_warnings

MAKE, RESET, STEP, RENDER, IDLE = range(5)
PHASES = ("make", "reset", "step", "render", "step")


class Rows(NamedTuple):
    """The row of one environment, or those of n: observations by name `[n, ...]`, the rest `[n]`.

    `complete` says whether a repeated episode lasted as long as its actions, `continues` whether
    the next reset continues an ended episode's game (see `episode_seeds`).
    """

    obs: dict[str, np.ndarray]
    reward: Any = 0.0
    is_first: Any = False
    is_last: Any = False
    is_terminal: Any = False
    complete: Any = True
    continues: Any = False


class Spaces(NamedTuple):
    """What an environment declares before its first step."""

    observation: Space
    action: Space
    time_limit: int | None
    render_fps: float | None


class Hosted:
    """What both kinds of hosted environments share: what they declare, calls, frames, closing.

    `position` is shared memory that tells the trainer's process where this one is: environment,
    phase, and a number that grows with every call as a sign of life.
    """

    spaces: Spaces

    def __init__(self, env_id: str, position: Any, check_bounds: bool) -> None:
        self._env_id, self._position, self._check_bounds = env_id, position, check_bounds

    def _enter(self, index: int, phase: int) -> None:
        self._position[0], self._position[1] = index, phase
        self._position[2] += 1

    def _declare(self, env: Any, observation: Space, action: Space) -> None:
        limit = None if env.spec is None else env.spec.max_episode_steps
        fps = env.metadata.get("render_fps")
        is_rate = isinstance(fps, (int, float)) and 0 < fps < math.inf
        self.spaces = Spaces(observation, action, limit, fps if is_rate else None)
        self._reader = ObservationReader(self._env_id, observation, check_bounds=self._check_bounds)
        layout = action_layout(self._env_id, action)
        self._mask_widths = mask_widths(self._env_id, self._reader.shapes, layout)

    def _built(self, index: int, make: Callable[[int], Any], argument: int) -> Any:
        self._enter(index, MAKE)
        try:
            return make(argument)
        except WorldFluxError:
            raise
        except RAISED as error:
            raise failure_of(index, "make", error) from None

    def _call(self, env: Any, index: int, phase: int, *args: Any, **kwargs: Any) -> Any:
        name = PHASES[phase]
        self._enter(index, phase)
        try:
            return getattr(env, name)(*args, **kwargs)
        except RAISED as error:
            raise failure_of(index, name, error, getattr(env.unwrapped, name, None)) from None

    def _frame(self, env: Any, index: int) -> np.ndarray:
        where = None
        try:
            drawn = self._call(env, index, RENDER)
            is_vector = isinstance(env, VectorEnv) and isinstance(drawn, (tuple, list)) and drawn
            frame = np.asarray(drawn[0] if is_vector else drawn)
            if frame.size and frame.shape[2:] == (3,) and frame.dtype == np.uint8:
                return frame
            problem = f"render returned {frame.dtype}{list(frame.shape)}, expected uint8 [H, W, 3]"
        except Failure as failure:
            problem, where = f"{failure.key} {failure.problem}", failure.where
        if env.render_mode is None:
            problem = f'it has no render_mode "rgb_array" ({problem})'
        raise EnvironmentSetupError(f"{self._env_id} cannot draw: {problem}", where=where)


class SeparateEnvironments(Hosted):
    """Environments stepped one after the other."""

    def __init__(
        self,
        env_id: str,
        make: Callable[[int], Env],
        indices: Sequence[int],
        position: Any,
        check_bounds: bool,
    ) -> None:
        super().__init__(env_id, position, check_bounds)
        self._indices = list(indices)
        self._envs: list[SeededEpisodes] = []
        for index in self._indices:
            take_mujoco_warnings()
            env = self._built(index, lambda number: checked_environment(make(number)), index)
            self._envs.append(SeededEpisodes(env, index))
        first = self._envs[0]
        self._declare(first, first.observation_space, first.action_space)
        self._rows: list[Rows] = []  # the last one of each environment
        self._ended = np.zeros(len(self._envs), bool)
        self._taken = [0] * len(self._envs)  # steps of the present game
        self._max_steps: int | None = None

    def reset(self, seed: int, max_steps: int | None) -> Rows:
        """Begin episode 0 everywhere; environment i is seeded with `seed + i`.

        Until the next `reset` or `begin`, every episode is cut after `max_steps`.
        """
        self._max_steps = max_steps
        # Environments that draw from the global streams: not the same numbers in every process.
        random.seed(seed + self._indices[0])
        np.random.seed((seed + self._indices[0]) % 2**32)
        return self._stacked(
            [self._begin(slot, seed=seed + index) for slot, index in enumerate(self._indices)]
        )

    def step(self, actions: np.ndarray) -> Rows:
        """One row of every environment; the action for an ended one is not used."""
        given = environment_actions(self.spaces.action, actions)
        return self._stacked(
            [
                self._begin(slot) if ended else self._step(slot, given[slot])
                for slot, ended in enumerate(self._ended)
            ]
        )

    def begin(self, seed: int, max_steps: int | None, episodes: Mapping[int, int]) -> Rows:
        self._max_steps = max_steps
        return self._stacked(
            [
                self._begin(slot, options={EPISODE: (seed, episodes[index])})
                for slot, index in enumerate(self._indices)
            ]
        )

    def play(self, actions: Mapping[int, np.ndarray]) -> Rows:
        """Take the actions `[n, A]` of each environment in turn; an ended one takes no more.

        Where the game continues after an end, one action stands for the reset in between.
        """
        rows = []
        for slot, index in enumerate(self._indices):
            row = self._rows[slot]
            for action in environment_actions(self.spaces.action, actions[index]):
                if row.is_last and not row.continues:
                    row = row._replace(complete=False)
                    break
                row = self._begin(slot) if row.is_last else self._step(slot, action)
            rows.append(row)
        return self._stacked(rows)

    def render(self) -> np.ndarray:
        """An RGB frame `[H, W, 3]` of the first environment, or EnvironmentSetupError."""
        return self._frame(self._envs[0], self._indices[0])

    def close(self) -> None:
        for env in self._envs:
            close_environment(self._env_id, env)

    def _begin(self, slot: int, **how: Any) -> Rows:
        env, index = self._envs[slot], self._indices[slot]
        if how or not env.continues:
            self._taken[slot] = 0
        returned = self._call(env, index, RESET, **how)
        with blamed_on(index):
            obs = self._reader.read_one(values_of("reset", returned, 2)[0])
            require_choice(obs, self._mask_widths, np.zeros(1, bool))
            return Rows(obs, is_first=True)

    def _step(self, slot: int, action: np.ndarray) -> Rows:
        env, index = self._envs[slot], self._indices[slot]
        returned = self._call(env, index, STEP, action)
        with blamed_on(index):
            obs, reward, terminated, truncated, _ = values_of("step", returned, 5)
            terminal = flag("terminated", terminated)
            ended = flag("truncated", truncated) or terminal
            self._taken[slot] += 1
            if self._taken[slot] == self._max_steps:
                ended, env.continues = True, False
            read = self._reader.read_one(obs)
            require_choice(read, self._mask_widths, np.array([ended]))
            return Rows(
                read,
                number(reward),
                is_last=ended,
                is_terminal=terminal,
                continues=ended and env.continues,
            )

    def _stacked(self, rows: list[Rows]) -> Rows:
        self._enter(self._indices[0], IDLE)
        self._rows = rows
        columns = Rows(*zip(*rows, strict=True))  # type: ignore[arg-type]
        flags = [np.array(column, bool) for column in columns[2:]]
        self._ended = flags[1]
        obs = {name: np.concatenate([r.obs[name] for r in rows]) for name in self._reader.shapes}
        return Rows(obs, np.array(columns.reward, np.float32), *flags)


class NativeEnvironments(Hosted):
    """The rows of a `gymnasium.vector.VectorEnv`, as those of separate environments.

    One that resets an ended episode on the SAME step returns two observations at once, and each
    needs a row: the end comes first, and the next call returns the beginning without a step. The
    other environments then repeat their observation with `is_first`: no false transition arises,
    only a cut in their sequence.
    """

    def __init__(
        self,
        env_id: str,
        make: Callable[[int], VectorEnv],
        indices: Sequence[int],
        position: Any,
        check_bounds: bool,
    ) -> None:
        super().__init__(env_id, position, check_bounds)
        self._count = count = len(indices)
        self._envs: VectorEnv = self._built(0, make, count)
        self._mode = self._envs.metadata.get("autoreset_mode")
        if self._mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP):
            raise EnvironmentSetupError(
                f"the native vector form of {env_id} has the autoreset mode {self._mode!r}; "
                "worldflux takes NEXT_STEP and SAME_STEP",
                hint='set online_collection.vector = "sync" or "async"',
            )
        observation = self._envs.single_observation_space
        self._declare(self._envs, observation, self._envs.single_action_space)
        self._ended = np.zeros(count, bool)
        self._beginning: dict[str, np.ndarray] | None = None  # of SAME_STEP, for the next call

    def reset(self, seed: int, max_steps: int | None) -> Rows:
        assert max_steps is None, "a native form cannot cut the episode of one environment"
        returned = self._call(self._envs, 0, RESET, seed=seed)
        self._beginning = None
        with blamed_on(0):
            obs = self._reader.read(values_of("reset", returned, 2)[0], self._count)
        return self._first_rows(obs)

    def step(self, actions: np.ndarray) -> Rows:
        if self._beginning is not None:
            obs, self._beginning = self._beginning, None
            return self._first_rows(obs)
        given = environment_actions(self.spaces.action, actions)
        returned = self._call(self._envs, 0, STEP, given)
        with blamed_on(0):
            raw, reward, terminated, truncated, info = values_of("step", returned, 5)
            terminated = self._column("terminated", terminated, np.bool_)
            truncated = self._column("truncated", truncated, np.bool_)
            reward = self._column("reward", reward, np.float64)
            check_rewards(reward)
            obs = self._reader.read(raw, self._count)
        first = self._ended
        ended = (terminated | truncated) & ~first
        if self._mode == AutoresetMode.SAME_STEP and ended.any():
            self._beginning = obs
            obs = self._with_ends(obs, info, ended)
            rows = self._as_rows(obs, reward, np.zeros_like(ended), ended, terminated & ended)
            self._ended = np.zeros_like(ended)  # it has begun again already
            return rows
        reward = np.where(first, 0.0, reward)
        return self._as_rows(obs, reward, first, ended, terminated & ~first)

    def begin(self, seed: int, max_steps: int | None, episodes: Mapping[int, int]) -> Rows:
        # A native form has no seed of each episode, so that no episode can be played again.
        rows = self.reset(seed + max(episodes.values(), default=0), max_steps)
        return rows._replace(complete=np.zeros(self._count, bool))

    def render(self) -> np.ndarray:
        return self._frame(self._envs, 0)

    def close(self) -> None:
        close_environment(self._env_id, self._envs)

    def _column(self, key: str, values: Any, dtype: Any) -> np.ndarray:
        """`[N]`, one value of each environment; each may be an array of one."""
        try:
            column = np.asarray(values, dtype)
        except (TypeError, ValueError) as error:
            raise Failure(0, key, f"is no array of {np.dtype(dtype)}: {error}") from None
        if column.size != self._count:
            raise Failure(0, key, f"has shape {column.shape}, expected ({self._count},)")
        return column.ravel()

    def _with_ends(
        self, obs: dict[str, np.ndarray], info: Any, ended: np.ndarray
    ) -> dict[str, np.ndarray]:
        """The observations, with the last one of each ended episode in its place."""
        result = {name: values.copy() for name, values in obs.items()}
        for index in map(int, np.flatnonzero(ended)):
            with blamed_on(index):
                if "final_obs" not in info:
                    raise Failure(0, "step", 'has no "final_obs" in its info')
                for name, value in self._reader.read_one(info["final_obs"][index]).items():
                    result[name][index] = value[0]
        return result

    def _first_rows(self, obs: dict[str, np.ndarray]) -> Rows:
        nothing = np.zeros(self._count, bool)
        return self._as_rows(obs, np.zeros(self._count), ~nothing, nothing, nothing)

    def _as_rows(
        self,
        obs: dict[str, np.ndarray],
        reward: np.ndarray,
        first: np.ndarray,
        last: np.ndarray,
        terminal: np.ndarray,
    ) -> Rows:
        self._enter(0, IDLE)
        require_choice(obs, self._mask_widths, last)
        self._ended = last
        yes = np.ones(self._count, bool)
        return Rows(obs, reward.astype(np.float32), first, last, terminal, yes, ~yes)
