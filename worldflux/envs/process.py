"""Both ends of an environment process: asked, timed and killed here; answering there.

No environment runs in the trainer's process, so that one that hangs, exits or is killed takes
nothing with it. The process ends when the trainer does, and answers one command at a time.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, cast

from gymnasium.vector.utils import CloudpickleWrapper

from worldflux.errors import WorldFluxError

from .faults import Failure
from .worker import MAKE, PHASES, NativeEnvironments, SeparateEnvironments

START_TIMEOUT_S = 120.0  # to import a simulator on a busy machine
REPORT_AFTER_S = 10.0  # of an environment that is being made
CLOSE_TIMEOUT_S = 2.0
_POLL_MS = 100  # between checks that the process is alive

# A forked process starts in milliseconds and takes any `make`; elsewhere than on Linux forking a
# process with threads is not safe.
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")


class EnvironmentProcess:
    """A process that hosts the environments `indices`.

    `make` builds environment number i, or with `native` the vector form of i copies;
    `step_timeout_s` is for each reset and step of one environment.
    """

    def __init__(
        self,
        env_id: str,
        make: Callable[[int], Any],
        indices: Sequence[int],
        *,
        step_timeout_s: float,
        check_bounds: bool,
        native: bool = False,
    ) -> None:
        self.indices = list(indices)
        self._env_id, self._timeout_s = env_id, step_timeout_s
        wrapped: Any = CloudpickleWrapper(cast(Any, make))  # where processes are spawned
        self._position = _CONTEXT.RawArray("q", [self.indices[0], MAKE, 0])
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=_serve,
            args=(theirs, env_id, wrapped, self.indices, self._position, check_bounds, native),
            name=f"worldflux-{env_id}",
            daemon=True,
        )
        with warnings.catch_warnings():
            # Python warns of threads at a fork; the child runs environments, never torch.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()
        # A renderer may take SIGTERM for itself (SDL does), and then Python would wait forever for
        # a process that nobody closed.
        self._finalizer = weakref.finalize(self, _kill, self._process, os.getpid())
        self._answers = select.poll()
        self._answers.register(self._connection, select.POLLIN)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def ask(self, command: str, *arguments: Any) -> None:
        """Send a command; if the process is gone, `answer` says so."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send((command, arguments))

    def answer(self, timeout_s: float | None = None) -> Any:
        """The result of the last command, or Failure: an environment failed, hangs, or is gone.

        The first answer, `Spaces`, comes without a command. Raises what `make` raised.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        alive_at, seen, reported = time.monotonic(), self._position[:], False
        while not self._answers.poll(_POLL_MS):
            now, position = time.monotonic(), self._position[:]
            if self._process.exitcode is not None and not self._answers.poll(0):
                raise self._gone()
            if position != seen:
                alive_at, seen = now, position
            elif now - alive_at > timeout_s:
                raise self._failure(f"did not return within {timeout_s:g} s")
            elif position[1] == MAKE and not reported and now - alive_at > REPORT_AFTER_S:
                self._report_wait(timeout_s)
                reported = True
        try:
            succeeded, result = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._gone() from None
        if not succeeded:
            assert isinstance(result, (Failure, WorldFluxError))
            raise result
        return result

    def _report_wait(self, timeout_s: float) -> None:
        print(
            f"warning: still waiting for make of {self._env_id}: environment {self._position[0]} "
            f"(it may take {timeout_s:g} s)",
            file=sys.stderr,
            flush=True,
        )

    def _gone(self) -> Failure:
        self._process.join(1.0)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return self._failure(f"ended its process by signal {-code} ({name})")
        return self._failure(f"ended its process with exit code {code}")

    def _failure(self, problem: str) -> Failure:
        index, phase, _ = self._position
        return Failure(index, PHASES[phase], problem)

    def end(self) -> None:
        """Wait a little for a closing process, then kill it with everything it started."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while self._process.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.002)
        self.kill()

    def kill(self) -> None:
        """Kill it and everything that it started, and wait until it is gone."""
        self._finalizer()
        self._connection.close()


def _kill(process: Any, parent: int) -> None:
    if os.getpid() != parent:  # a fork of the trainer must not
        return
    if process.exitcode is None:
        process.kill()
    with suppress(ProcessLookupError, PermissionError):  # of a group without members
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _serve(
    connection: Connection,
    env_id: str,
    make: Any,
    indices: Sequence[int],
    position: Any,
    check_bounds: bool,
    native: bool,
) -> None:
    """Build the environments, send what they declare, and answer commands until "close" or the end.

    Answers are `(True, result)` or `(False, Failure or WorldFluxError)`.
    """
    _leave_the_trainer(connection)
    # A simulator may start processes too, which Python denies to daemons.
    multiprocessing.current_process().daemon = False
    hosts: Any = NativeEnvironments if native else SeparateEnvironments
    try:
        hosted = hosts(env_id, make.fn, indices, position, check_bounds)
    except (Failure, WorldFluxError) as error:
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
        except (Failure, WorldFluxError) as error:
            connection.send((False, error))
        else:
            connection.send((True, result))


def _leave_the_trainer(connection: Connection) -> None:
    """Drop what a forked process has of the trainer: group, handlers, files, threads, garbage."""
    parent = os.getppid()
    os.setsid()  # Ctrl-C is for the trainer, and a kill takes the environment's own children too
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Slurm and systemd end every process of a run at once; the trainer needs its environments until
    # it has saved. A handler, since what the environment starts would inherit that it is ignored.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
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
