"""What runs in an environment process: environments that are held to their word, step by step.

No environment runs in the trainer's process, so that one that hangs, exits or is killed takes
nothing with it. The process ends when the trainer does, and answers one command at a time.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, Protocol

import numpy as np
from gymnasium import Env, spaces
from numpy.typing import NDArray

from worldflux.errors import EnvironmentSetupError, WorldFluxError

from .actions import environment_actions
from .episode_seeds import EPISODE, SeededEpisodes
from .faults import Broken, broken_by, described, place
from .mujoco_log import take_warnings
from .observations import ObservationReader
from .returned import BadValue, checked_environment, flag, number, values_of

Array = NDArray[Any]

MAKE, RESET, STEP, RENDER, IDLE = range(5)
PHASES = ("make", "reset", "step", "render", "step")


class Row(NamedTuple):
    """What one environment told: observations by name `[1, ...]`, and what came with them.

    `complete` says whether a repeated episode lasted as long as its actions, `continues` whether
    the next reset continues an ended episode's game (see `episode_seeds`).
    """

    obs: dict[str, Array]
    reward: float = 0.0
    is_first: bool = False
    is_last: bool = False
    is_terminal: bool = False
    complete: bool = True
    continues: bool = False


class Rows(NamedTuple):
    """What n environments told together: observations by name `[n, ...]`, the rest `[n]`."""

    obs: dict[str, Array]
    reward: Array
    is_first: Array
    is_last: Array
    is_terminal: Array
    complete: Array
    continues: Array


class Spaces(NamedTuple):
    """What an environment says of itself before its first step."""

    observation: spaces.Space
    action: spaces.Space
    time_limit: int | None
    render_fps: float | None

    @classmethod
    def of(
        cls, observation: spaces.Space, action: spaces.Space, spec: Any, metadata: Mapping[str, Any]
    ) -> Spaces:
        """What an environment with these attributes says."""
        limit = None if spec is None else spec.max_episode_steps
        fps = metadata.get("render_fps")
        is_rate = isinstance(fps, (int, float)) and 0 < fps < math.inf
        return cls(observation, action, limit, fps if is_rate else None)


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
        self.spaces = Spaces.of(
            first.observation_space, first.action_space, first.spec, first.metadata
        )
        self._reader = ObservationReader(env_id, first.observation_space, check_bounds=check_bounds)
        self._ended = np.zeros(len(self._envs), bool)
        self._rows: list[Row] = []  # what each environment told last
        self._taken = [0] * len(self._envs)  # steps of the present game
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

    def render(self) -> Array:
        """An RGB frame `[H, W, 3]` of the first environment.

        Raises:
            EnvironmentSetupError: when it cannot draw; it can be stepped all the same.
        """
        return frame_of(self._env_id, self._envs[0], lambda: self._call(0, RENDER))

    def close(self) -> None:
        """Close every environment."""
        for env in self._envs:
            close(self._env_id, env)

    def _build(self, make: Callable[[int], Env], index: int) -> SeededEpisodes:
        self._position.at(index, MAKE)
        try:
            take_warnings()
            return SeededEpisodes(checked_environment(make(index)), index)
        except WorldFluxError:
            raise
        except (Exception, SystemExit) as error:
            raise broken_by(index, "make", error) from None

    def _begin(self, slot: int, **how: Any) -> Row:
        if how or not self._envs[slot].continues:
            self._taken[slot] = 0
        returned = self._call(slot, RESET, **how)
        with self._held(slot):
            obs = self._reader.read_one(values_of("reset", returned, 2)[0])
        return Row(obs, is_first=True)

    def _step(self, slot: int, action: Array) -> Row:
        returned = self._call(slot, STEP, action)
        with self._held(slot):
            obs, reward, terminated, truncated, _ = values_of("step", returned, 5)
            terminal = flag("terminated", terminated)
            ended = flag("truncated", truncated) or terminal
            self._taken[slot] += 1
            if self._taken[slot] == self._max_steps:
                ended, self._envs[slot].continues = True, False
            return Row(
                self._reader.read_one(obs),
                number(reward),
                is_last=ended,
                is_terminal=terminal,
                continues=ended and self._envs[slot].continues,
            )

    def _call(self, slot: int, phase: int, *args: Any, **kwargs: Any) -> Any:
        """Call the environment, its position said before; what it raises is its own fault."""
        env, index, name = self._envs[slot], self._indices[slot], PHASES[phase]
        self._position.at(index, phase)
        try:
            return getattr(env, name)(*args, **kwargs)
        except (Exception, SystemExit) as error:
            raise broken_by(index, name, error, getattr(env.unwrapped, name, None)) from None

    @contextmanager
    def _held(self, slot: int) -> Iterator[None]:
        try:
            yield
        except BadValue as error:
            raise broken_by(self._indices[slot], error.key, error) from None

    def _stacked(self, rows: list[Row]) -> Rows:
        self._position.at(self._indices[0], IDLE)
        self._rows = rows
        columns = Row(*zip(*rows, strict=True))  # type: ignore[arg-type]
        self._ended = np.array(columns.is_last, bool)
        return Rows(
            {name: np.concatenate([row.obs[name] for row in rows]) for name in self._reader.shapes},
            np.array(columns.reward, np.float32),
            np.array(columns.is_first, bool),
            self._ended,
            np.array(columns.is_terminal, bool),
            np.array(columns.complete, bool),
            np.array(columns.continues, bool),
        )


def serve(connection: Connection, host: Callable[[Position], Hosted], shared: Any) -> None:
    """Build the environments, say what they are, and answer commands until "close" or the end.

    Answers are `(True, result)` or `(False, Broken or WorldFluxError)`.
    """
    _leave_the_trainer(connection)
    # A simulator may start processes too, which Python denies to daemons.
    multiprocessing.current_process().daemon = False
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
    # That was the pipe of the trainer's tracker too; what an environment shares gets another one.
    tracker: Any = resource_tracker._resource_tracker
    tracker._fd = tracker._pid = None
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)  # OpenMP's threads did not come along
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.killpg(0, signal.SIGKILL)


def close(env_id: str, env: Any) -> None:
    """Close an environment; one that raises has nothing left to lose, so it is only reported."""
    try:
        env.close()
    except (Exception, SystemExit) as error:
        at = place(error)
        where = "" if at is None else f"{at}: "
        text = f"warning: {where}{env_id}: close raised {described(error)}\n"
        os.write(2, text.encode())  # whatever the trainer made of sys.stderr


def frame_of(env_id: str, env: Any, draw: Callable[[], Any]) -> Array:
    """What `draw` drew, if it is an RGB frame `[H, W, 3]`.

    Raises:
        EnvironmentSetupError: when it is none, or when drawing raised.
    """
    where = None
    try:
        frame = np.asarray(draw())
        if frame.size and frame.shape[2:] == (3,) and frame.dtype == np.uint8:
            return frame
        problem = f"render returned {frame.dtype}{list(frame.shape)}, expected uint8 [H, W, 3]"
    except Broken as broken:
        problem, where = f"{broken.key} {broken.problem}", broken.where
    if env.render_mode is None:
        problem = f'it has no render_mode "rgb_array" ({problem})'
    raise EnvironmentSetupError(f"{env_id} cannot draw: {problem}", where=where)
