"""What runs in an environment process: environments that are held to their word, step by step.

No environment runs in the trainer's process, so that one that hangs, exits or is killed takes
nothing with it. The process ends when the trainer does, and answers one command at a time.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import Env, spaces
from numpy.typing import NDArray

from worldflux.errors import EnvironmentSetupError, WorldFluxError

from .actions import environment_actions
from .episode_seeds import EPISODE, SeededEpisodes
from .mujoco_log import take_warnings
from .observations import BadValue, ObservationReader, single

Array = NDArray[Any]

MAKE, RESET, STEP, RENDER, IDLE = range(5)
_IS_LAST = 3  # in a row
PHASES = ("make", "reset", "step", "render", "step")


class Rows(NamedTuple):
    """What n environments told together: observations by name `[n, ...]`, the rest `[n]`.

    `complete` says whether a repeated episode lasted as long as its actions.
    """

    obs: dict[str, Array]
    reward: Array
    is_first: Array
    is_last: Array
    is_terminal: Array
    complete: Array


class Spaces(NamedTuple):
    """What an environment says of itself before its first step."""

    observation: spaces.Space
    action: spaces.Space
    time_limit: int | None


class Broken(Exception):
    """An environment broke its word: its index, the key, what it did and where in the code."""

    def __init__(self, index: int, key: str, problem: str, where: str | None = None) -> None:
        super().__init__(index, key, problem, where)
        self.index, self.key, self.problem, self.where = index, key, problem, where


class Hosted(Protocol):
    """Environments that a process hosts: its own ones one by one, or a native vector form."""

    spaces: Spaces

    def reset(self, seed: int, max_steps: int | None) -> Rows: ...

    def step(self, actions: Array) -> Rows: ...

    def begin(self, seed: int, max_steps: int | None, episodes: Mapping[int, int]) -> Rows: ...

    def play(self, actions: Mapping[int, Array]) -> Rows: ...

    def render(self) -> Array: ...

    def close(self) -> None: ...


class Position:
    """Where the process is, readable from outside: which environment, doing what."""

    def __init__(self, shared: Any) -> None:
        self._shared = shared

    def at(self, index: int, phase: int) -> None:
        """Say it before it happens; every change counts as a sign of life."""
        self._shared[0], self._shared[1] = index, phase
        self._shared[2] += 1

    def read(self) -> tuple[int, int, int]:
        """Environment, phase, and a number that grows."""
        return self._shared[0], self._shared[1], self._shared[2]


class SeparateEnvironments:
    """Environments of one process, stepped one after the other; an ended one begins anew."""

    def __init__(
        self,
        env_id: str,
        make: Callable[[int], Env],
        indices: Sequence[int],
        position: Position,
        check_bounds: bool,
    ) -> None:
        self._env_id, self._indices, self._position = env_id, list(indices), position
        self._envs = [self._build(make, index) for index in indices]
        first = self._envs[0]
        limit = None if first.spec is None else first.spec.max_episode_steps
        self.spaces = Spaces(first.observation_space, first.action_space, limit)
        self._reader = ObservationReader(env_id, first.observation_space, check_bounds=check_bounds)
        self._ended = np.zeros(len(self._envs), bool)
        self._rows: list[tuple[Any, ...]] = []  # what each environment told last
        self._taken = [0] * len(self._envs)  # steps of the present episode
        self._max_steps: int | None = None

    def reset(self, seed: int, max_steps: int | None) -> Rows:
        """Begin episode 0 everywhere; environment i is seeded with `seed + i`.

        Until the next call of this or `begin`, every episode is cut after `max_steps`.
        """
        self._max_steps = max_steps
        # Environments that draw from the global streams: not the same numbers in every process.
        random.seed(seed + self._indices[0])
        np.random.seed((seed + self._indices[0]) % 2**32)
        return self._stacked(
            [self._begin(slot, seed=seed + index) for slot, index in enumerate(self._indices)]
        )

    def step(self, actions: Array) -> Rows:
        """One row of every environment; the action for an ended one is not used."""
        given = environment_actions(self.spaces.action, actions)
        rows = []
        for slot in range(len(self._envs)):
            rows.append(self._begin(slot) if self._ended[slot] else self._step(slot, given[slot]))
        return self._stacked(rows)

    def begin(self, seed: int, max_steps: int | None, episodes: Mapping[int, int]) -> Rows:
        """Begin the given episode of each environment (see `episode_seeds`)."""
        self._max_steps = max_steps
        return self._stacked(
            [
                self._begin(slot, options={EPISODE: (seed, episodes[index])})
                for slot, index in enumerate(self._indices)
            ]
        )

    def play(self, actions: Mapping[int, Array]) -> Rows:
        """Take the actions `[n, A]` of each environment in turn; an ended one takes no more."""
        rows = []
        for slot, index in enumerate(self._indices):
            row = self._rows[slot]
            for action in environment_actions(self.spaces.action, actions[index]):
                if row[_IS_LAST]:
                    row = (*row[:-1], False)  # not complete
                    break
                row = self._step(slot, action)
            rows.append(row)
        return self._stacked(rows)

    def render(self) -> Array:
        """An RGB frame `[H, W, 3]` of the first environment.

        Raises:
            EnvironmentSetupError: when it cannot draw; it can be stepped all the same.
        """
        return frame_of(self._env_id, self._envs[0], lambda: self._call(0, RENDER))

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            env.close()

    def _build(self, make: Callable[[int], Env], index: int) -> SeededEpisodes:
        self._position.at(index, MAKE)
        try:
            take_warnings()
            return SeededEpisodes(make(index), index)
        except WorldFluxError:
            raise
        except (Exception, SystemExit) as error:
            raise broken_by(index, "make", error) from None

    def _begin(self, slot: int, **how: Any) -> tuple[Any, ...]:
        obs, _ = self._pair(slot, self._call(slot, RESET, **how))
        self._taken[slot] = 0
        return self._read(slot, obs), 0.0, True, False, False, True

    def _step(self, slot: int, action: Array) -> tuple[Any, ...]:
        told = self._call(slot, STEP, action)
        if not isinstance(told, tuple) or len(told) != 5:
            raise self._broken(slot, "step", f"returned {_told(told)}, expected 5 values")
        obs, reward, terminated, truncated, _ = told
        encoded = self._read(slot, obs)
        value = self._number(slot, reward)
        terminal = self._flag(slot, "terminated", terminated)
        self._taken[slot] += 1
        ended = terminal or self._flag(slot, "truncated", truncated)
        ended = ended or self._taken[slot] == self._max_steps
        return encoded, value, False, ended, terminal, True

    def _call(self, slot: int, phase: int, *args: Any, **kwargs: Any) -> Any:
        """Call the environment, its position told before; what it raises is a fault of its own."""
        env, index = self._envs[slot], self._indices[slot]
        self._position.at(index, phase)
        functions: dict[int, Callable[..., Any]]
        functions = {RESET: env.reset, STEP: env.step, RENDER: env.render}
        try:
            return functions[phase](*args, **kwargs)
        except (Exception, SystemExit) as error:
            raise broken_by(index, PHASES[phase], error) from None

    def _pair(self, slot: int, told: Any) -> tuple[Any, Any]:
        if not isinstance(told, tuple) or len(told) != 2:
            raise self._broken(slot, "reset", f"returned {_told(told)}, expected 2 values")
        return told

    def _read(self, slot: int, obs: Any) -> dict[str, Array]:
        try:
            return self._reader.read(single(obs), 1)
        except BadValue as error:
            raise self._broken(slot, error.key, error.problem) from None

    def _number(self, slot: int, reward: Any) -> float:
        try:
            value = np.asarray(reward, np.float64)
        except (TypeError, ValueError):
            raise self._broken(slot, "reward", f"is {reward!r}, expected a number") from None
        if value.size != 1:
            raise self._broken(slot, "reward", f"has shape {value.shape}, expected a number")
        if not np.isfinite(value).all():
            raise self._broken(slot, "reward", f"is not finite: {value.item()}")
        return float(value.item())

    def _flag(self, slot: int, key: str, value: Any) -> bool:
        if np.ndim(value) != 0 or value not in (False, True):
            raise self._broken(slot, key, f"is {value!r}, expected True or False")
        return bool(value)

    def _broken(self, slot: int, key: str, problem: str) -> Broken:
        return Broken(self._indices[slot], key, problem)

    def _stacked(self, rows: list[tuple[Any, ...]]) -> Rows:
        self._position.at(self._indices[0], IDLE)
        self._rows = rows
        obs, reward, first, last, terminal, complete = zip(*rows, strict=True)
        self._ended = np.array(last, bool)
        return Rows(
            {name: np.concatenate([o[name] for o in obs]) for name in self._reader.shapes},
            np.array(reward, np.float32),
            np.array(first, bool),
            self._ended,
            np.array(terminal, bool),
            np.array(complete, bool),
        )


def serve(connection: Connection, host: Callable[[Position], Hosted], shared: Any) -> None:
    """Build the environments, say what they are, and answer commands until "close" or the end.

    Answers are `(True, result)` or `(False, Broken or WorldFluxError)`.
    """
    _leave_the_trainer(connection)
    position = Position(shared)
    try:
        hosted = host(position)
    except (Broken, WorldFluxError) as error:
        connection.send((False, error))
        return
    connection.send((True, hosted.spaces))
    while True:
        try:
            command, arguments = connection.recv()
        except EOFError:
            command = "close"
        if command == "close":
            hosted.close()
            return
        try:
            result = getattr(hosted, command)(*arguments)
        except (Broken, WorldFluxError) as error:
            connection.send((False, error))
        else:
            connection.send((True, result))


def _leave_the_trainer(connection: Connection) -> None:
    """Drop what a forked process has of the trainer: group, handlers, files, threads, garbage."""
    parent = os.getppid()
    os.setsid()  # Ctrl-C is for the trainer, and a kill takes the environment's own children too
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # objects of the trainer are never collected here, or they would close our files
    # An inherited lock or pipe would outlive the trainer.
    os.closerange(3, connection.fileno())
    os.closerange(connection.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # OpenMP's threads did not come along
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(0, signal.SIGKILL)


def frame_of(env_id: str, env: Any, draw: Callable[[], Any]) -> Array:
    """What `draw` drew, if it is an RGB frame `[H, W, 3]`.

    Raises:
        EnvironmentSetupError: when it is none, or when drawing raised.
    """
    where = None
    try:
        frame = np.asarray(draw())
        if frame.ndim == 3 and frame.shape[2] == 3 and frame.dtype == np.uint8:
            return frame
        problem = f"render returned {frame.dtype}{list(frame.shape)}, expected uint8 [H, W, 3]"
    except Broken as broken:
        problem, where = f"{broken.key} {broken.problem}", broken.where
    if env.render_mode is None:
        problem = f'it has no render_mode "rgb_array" ({problem})'
    raise EnvironmentSetupError(f"{env_id} cannot draw: {problem}", where=where)


def broken_by(index: int, key: str, error: BaseException) -> Broken:
    """What the trainer is told when `error` ended the work of environment `index`."""
    if isinstance(error, SystemExit):
        return Broken(index, key, f"called exit({error.code!r})", _place(error))
    return Broken(index, key, f"raised {type(error).__name__}: {error}", _place(error))


def _place(error: BaseException) -> str | None:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def _told(value: Any) -> str:
    return f"{len(value)} values" if isinstance(value, tuple) else f"a {type(value).__name__}"
