"""N environments stepped together, in the project's one time alignment.

An ended episode begins again on the NEXT step, and the action given to that step is not used. Here
that step is simply the `is_first` row of the next episode: no transition leads to it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from worldflux.errors import EnvironmentFault, EnvironmentSetupError

from .episode_seeds import EpisodePosition, episode_seed
from .faults import Failure
from .process import START_TIMEOUT_S, EnvironmentProcess
from .spec import EnvironmentSpec, spec_of
from .worker import Rows, Spaces

Mode = Literal["sync", "async", "native"]

MAX_RESTARTS = 3
STEP_TIMEOUT_S = 60.0
_REPORT_S = 0.25  # of repeated steps between reports


@dataclass(frozen=True)
class EnvStep:
    """One step of N environments: observations [N, ...] (by name where the environment names them),
    and what came with them, [N] each.

    `restarted` marks environments whose episode was interrupted by a fault: its row is the first of
    a new one. `continues` marks ended episodes whose game the next one continues.
    """

    obs: np.ndarray | dict[str, np.ndarray]
    reward: np.ndarray
    is_first: np.ndarray
    is_last: np.ndarray
    is_terminal: np.ndarray
    restarted: np.ndarray
    continues: np.ndarray

    def begins_after(self, before: EnvStep) -> np.ndarray:
        """`[N]`: whether a game begins here, and not only an episode."""
        return np.asarray(self.is_first & (self.restarted | ~before.continues))


class VectorEnvironment:
    """N copies of one environment behind one contract (see `EnvironmentSpec`).

    Args:
        make: builds environment number i; for "native", the vector environment of i copies.
        mode: "sync", one process that steps them one after the other; "async", `processes` that
            work at the same time; "native", the family's own vector form in one process.
        processes: of "async"; by default one for each core, and at least two.
        on_env_error: "stop", or "restart" the process of a failed environment, at most
            `max_restarts` times; every environment of that process begins a new episode.
        step_timeout_s: the longest that one reset or step of one environment may take.
        check_bounds: whether an observation outside its declared bounds is a fault.
        on_restart: receives every fault after which a process was restarted.

    Attributes:
        spec: the contract.
        spaces: the environment's own spaces.

    Raises:
        EnvironmentFault: naming environment, step and key, here and in `reset` and `step`; every
            process is gone by then.
        EnvironmentSetupError: when the spaces are not supported.
    """

    def __init__(
        self,
        env_id: str,
        make: Callable[[int], Any],
        num_envs: int,
        *,
        mode: Mode = "sync",
        on_env_error: Literal["stop", "restart"] = "stop",
        max_restarts: int = MAX_RESTARTS,
        step_timeout_s: float = STEP_TIMEOUT_S,
        check_bounds: bool = True,
        processes: int | None = None,
        on_restart: Callable[[EnvironmentFault], None] | None = None,
    ) -> None:
        self.num_envs, self.restarts = num_envs, 0
        self._env_id, self._on_restart = env_id, on_restart
        self._restarting, self._max_restarts = on_env_error == "restart", max_restarts
        self._start = partial(
            EnvironmentProcess,
            env_id,
            make,
            step_timeout_s=step_timeout_s,
            check_bounds=check_bounds,
            native=mode == "native",
        )
        self._seed, self._step_count = 0, 0
        self._max_steps: int | None = None
        self._episodes = np.zeros(num_envs, np.int64)  # of each environment, since the reset
        self._last: EnvStep | None = None
        self._processes: list[EnvironmentProcess] = []
        try:
            for group in _groups(num_envs, processes if mode == "async" else 1):
                self._processes.append(self._start(group))
            self.spec: EnvironmentSpec = self._agreed_spec()
        except Failure as failure:
            raise self._stopped(failure) from None
        except BaseException:
            self.kill()
            raise

    def reset(self, seed: int, max_steps: int | None = None) -> EnvStep:
        """Start an episode everywhere; environment i is seeded with `seed + i`.

        Until the next reset or replay, every episode is cut after `max_steps`.
        """
        self._seed, self._step_count, self._max_steps = seed, 0, max_steps
        self._episodes[:], self._last = -1, None  # the first rows make it 0
        return self._counted(self._together("reset", lambda _: (seed, max_steps))[0])

    def step(self, actions: np.ndarray) -> EnvStep:
        """Act with `[N, A]` in [-1, 1] (or one-hot rows); ended environments begin again."""
        self._step_count += 1
        return self._counted(self._together("step", lambda process: (actions[process.indices],))[0])

    def replay(
        self,
        seed: int,
        positions: Sequence[EpisodePosition],
        report: Callable[[int, int], None] | None = None,
    ) -> tuple[EnvStep, np.ndarray]:
        """Play each environment's episode again, up to its position after `reset(seed)`.

        Args:
            report: receives the steps repeated so far and their total, about four times a second;
                what it raises ends the replay.

        Returns:
            The last step of every environment, and `[N]` whether all of its actions could be taken.
        """
        self._seed, self._step_count, self._max_steps = seed, 0, None
        self._episodes[:] = [position.episode for position in positions]
        step, complete = self._together(
            "begin",
            lambda process: (seed, None, {i: positions[i].episode for i in process.indices}),
        )
        lengths = [len(position.actions) for position in positions]
        total = max((n for n, whole in zip(lengths, complete, strict=True) if whole), default=0)
        count = 1
        while self._step_count < total:
            if report is not None:
                report(self._step_count, total)
            began, following = time.monotonic(), self._step_count + count
            parts = [
                position.actions[self._step_count : following if whole else self._step_count]
                for position, whole in zip(positions, complete, strict=True)
            ]
            step, whole = self._played(parts)
            complete &= whole
            self._step_count = min(following, total)
            if time.monotonic() - began < _REPORT_S:
                count *= 2
        self._last = step
        return step, complete

    def begun_with(self, index: int) -> int:
        """The seed that began the present episode (or game) of environment `index`."""
        return episode_seed(self._seed, index, int(self._episodes[index]))

    def render_first(self) -> np.ndarray:
        """An RGB frame `[H, W, 3]` of environment 0; EnvironmentSetupError when it cannot draw."""
        self._refuse_closed()
        self._processes[0].ask("render")
        try:
            return np.asarray(self._processes[0].answer())
        except Failure as failure:
            raise self._stopped(failure) from None

    def close(self) -> None:
        for process in self._processes:
            process.ask("close")
        for process in self._processes:
            process.end()
        self._processes = []

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
        self._processes = []

    def _agreed_spec(self) -> EnvironmentSpec:
        declared: list[Spaces] = [p.answer(START_TIMEOUT_S) for p in self._processes]
        first = declared[0]
        for index, other in enumerate(declared):
            if (other.observation, other.action) != (first.observation, first.action):
                raise EnvironmentSetupError(
                    f"{self._env_id}: environment {index} has other spaces than environment 0: "
                    f"{other.observation}, {other.action}",
                    hint="make_env must build the same environment every time",
                )
        self.spaces = first
        return spec_of(self._env_id, *first)

    def _together(
        self, command: str, arguments: Callable[[EnvironmentProcess], tuple[Any, ...]]
    ) -> tuple[EnvStep, np.ndarray]:
        """Give every process its command; its rows, or those of its restart, as one step."""
        self._refuse_closed()
        for process in self._processes:
            process.ask(command, *arguments(process))
        answers: list[Rows | Failure] = []
        for process in self._processes:
            try:
                answers.append(process.answer())
            except Failure as failure:
                answers.append(failure)
        restarted = np.zeros(self.num_envs, bool)
        rows = []
        for number, answer in enumerate(answers):
            if isinstance(answer, Failure):
                restarted[self._processes[number].indices] = True
                answer = self._restarted(number, answer)
            rows.append(answer)
        joined = _joined(rows)
        obs = joined.obs if self.spec.modalities is not None else joined.obs[""]
        flags = joined.is_first, joined.is_last, joined.is_terminal
        step = EnvStep(obs, joined.reward, *flags, restarted, joined.continues)
        return step, joined.complete & ~restarted

    def _played(self, actions: Sequence[np.ndarray]) -> tuple[EnvStep, np.ndarray]:
        return self._together("play", lambda process: ({i: actions[i] for i in process.indices},))

    def _counted(self, step: EnvStep) -> EnvStep:
        self._episodes += step.is_first if self._last is None else step.begins_after(self._last)
        self._last = step
        return step

    def _restarted(self, number: int, failure: Failure) -> Rows:
        """The first rows of new episodes in a new process, as often as restarts are left."""
        while self._restarting and self.restarts < self._max_restarts:
            self.restarts += 1
            fault = self._fault(failure)
            old = self._processes[number]
            old.kill()
            following = {i: int(self._episodes[i]) + 1 for i in old.indices}
            try:
                self._processes[number] = new = self._start(old.indices)
                new.answer(START_TIMEOUT_S)
                new.ask("begin", self._seed, self._max_steps, following)
                rows: Rows = new.answer()
            except Failure as again:
                failure = again
                continue
            if self._on_restart is not None:
                self._on_restart(fault)
            return rows
        raise self._stopped(failure) from None

    def _stopped(self, failure: Failure) -> EnvironmentFault:
        """The fault to raise, once every process is gone."""
        for process in self._processes:
            if failure.row in process.indices:
                process.kill()
        self._processes = [p for p in self._processes if failure.row not in p.indices]
        self.close()
        return self._fault(failure)

    def _fault(self, failure: Failure) -> EnvironmentFault:
        name = f"{self._env_id}: environment {failure.row}"
        message = f"{name} failed at step {self._step_count}: {failure.key} {failure.problem}"
        hint = failure.hint
        if failure.key == "make":
            message = f"{name} cannot be made: {failure.key} {failure.problem}"
        elif hint is None and self._step_count == 0:
            hint = "fix the environment: it fails before its first step"
        elif hint is None and not self._restarting:
            hint = (
                "fix the environment, or have its process restarted: worldflux train "
                '--set online_collection.on_env_error="restart"'
            )
        elif hint is None and self.restarts >= self._max_restarts:
            hint = (
                f"fix the environment: it was restarted {self.restarts} times already "
                "(online_collection.max_restarts)"
            )
        fault = EnvironmentFault(message, where=failure.where, hint=hint)
        fault.env_id, fault.index = self._env_id, failure.row
        fault.step, fault.key = self._step_count, failure.key
        return fault

    def _refuse_closed(self) -> None:
        if not self._processes:
            raise EnvironmentFault(f"{self._env_id}: these environments are closed")


def _groups(num_envs: int, processes: int | None) -> list[list[int]]:
    if processes is None:
        processes = max(2, os.cpu_count() or 1)
    return [part.tolist() for part in np.array_split(np.arange(num_envs), processes) if len(part)]


def _joined(rows: Sequence[Rows]) -> Rows:
    """The rows of all processes, in the order of the environments."""
    if len(rows) == 1:
        return rows[0]
    obs = {name: np.concatenate([row.obs[name] for row in rows]) for name in rows[0].obs}
    return Rows(obs, *(np.concatenate(column) for column in list(zip(*rows, strict=True))[1:]))
