"""One environment process as the trainer sees it: asked, timed, killed."""

from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from gymnasium.vector.utils import CloudpickleWrapper

from worldflux.errors import WorldFluxError

from .faults import Broken
from .native import NativeEnvironments
from .worker import MAKE, PHASES, Hosted, Position, SeparateEnvironments, Spaces, serve

START_TIMEOUT_S = 120.0  # to import a simulator on a busy machine
CLOSE_TIMEOUT_S = 2.0
_POLL_MS = 100  # between looks at whether the process is still there

# A forked process starts in milliseconds and takes any `make`; elsewhere than on Linux forking a
# process with threads is not safe.
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")


class EnvironmentProcess:
    """A process that hosts the environments `indices`.

    Args:
        make: builds environment number i; with `native`, the whole native vector environment.
        step_timeout_s: for each reset and step of one environment.
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
        self._timeout_s = step_timeout_s
        wrapped: Any = CloudpickleWrapper(cast(Any, make))  # where processes are spawned
        host: Callable[[Position], Hosted] = partial(
            _host, env_id, wrapped, self.indices, check_bounds, native
        )
        shared = _CONTEXT.RawArray("q", [self.indices[0], MAKE, 0])
        self._position = Position(shared)
        self._connection, theirs = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(
            target=serve, args=(theirs, host, shared), name=f"worldflux-{env_id}", daemon=True
        )
        with warnings.catch_warnings():
            # Python warns of threads at a fork; the child runs environments, never torch.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        theirs.close()
        # A renderer may take SIGTERM for itself (SDL does), and then Python would wait for ever for
        # a process that nobody closed.
        self._forgotten = weakref.finalize(self, _kill, self._process, os.getpid())
        self._told = select.poll()
        self._told.register(self._connection, select.POLLIN)

    @property
    def pid(self) -> int:
        """Process id, which is its group's too."""
        assert self._process.pid is not None
        return self._process.pid

    def spaces(self) -> Spaces:
        """What the environments say of themselves, once they are built.

        Raises:
            Broken: when one cannot be built, or not in time.
            WorldFluxError: as `make` raised it.
        """
        answer: Spaces = self._answer(START_TIMEOUT_S)
        return answer

    def ask(self, command: str, *arguments: Any) -> None:
        """Send a command; a process that is gone is told by `answer`."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._connection.send((command, arguments))

    def answer(self) -> Any:
        """The result of the last command.

        Raises:
            Broken: when an environment broke its word, hangs, or its process is gone.
        """
        return self._answer(self._timeout_s)

    def _answer(self, timeout_s: float) -> Any:
        alive_at, seen = time.monotonic(), self._position.read()
        while not self._told.poll(_POLL_MS):
            now, position = time.monotonic(), self._position.read()
            if self._process.exitcode is not None and not self._told.poll(0):
                raise self._gone()
            if position != seen:
                alive_at, seen = now, position
            elif now - alive_at > timeout_s:
                raise self._broken(f"did not return within {timeout_s:g} s")
        try:
            succeeded, result = self._connection.recv()
        except (EOFError, ConnectionResetError):
            raise self._gone() from None
        if not succeeded:
            assert isinstance(result, (Broken, WorldFluxError))
            raise result
        return result

    def _gone(self) -> Broken:
        self._process.join(1.0)
        code = self._process.exitcode
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            return self._broken(f"ended its process by signal {-code} ({name})")
        return self._broken(f"ended its process with exit code {code}")

    def _broken(self, problem: str) -> Broken:
        index, phase, _ = self._position.read()
        return Broken(index, PHASES[phase], problem)

    def close(self) -> None:
        """Ask it to close its environments; `end` waits for that."""
        self.ask("close")

    def end(self) -> None:
        """Wait a little for a closing process, and then kill it with everything it started."""
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while self._process.exitcode is None and time.monotonic() < deadline:
            time.sleep(0.002)
        self.kill()

    def kill(self) -> None:
        """Kill it and everything that it started, and wait until it is gone."""
        self._forgotten()
        self._connection.close()


def _kill(process: Any, parent: int) -> None:
    if os.getpid() != parent:  # a fork of the trainer has no say in it
        return
    if process.exitcode is None:
        process.kill()
    with suppress(ProcessLookupError, PermissionError):  # of a group without members
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def _host(
    env_id: str,
    make: Any,
    indices: Sequence[int],
    check_bounds: bool,
    native: bool,
    position: Position,
) -> Hosted:
    if native:
        return NativeEnvironments(env_id, make.fn, len(indices), position, check_bounds)
    return SeparateEnvironments(env_id, make.fn, indices, position, check_bounds)
