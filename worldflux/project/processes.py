"""The processes of one run: started by torchrun, or on one machine by `worldflux train --nproc`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError, TrainingError

# What torchrun sets, and what `--nproc` does besides.
RANK, WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
)  # fmt: skip
_RENDEZVOUS, _NPROC, _LAUNCHER = (
    "WORLDFLUX_RENDEZVOUS", "WORLDFLUX_NPROC", "WORLDFLUX_LAUNCHER"
)  # fmt: skip
_TORCHRUN = "TORCHELASTIC_RUN_ID"
_GRACE_S = 10.0  # for the others to end by themselves once one has failed
_LOOK_S = 0.05
_PARENT_S = 0.5
_STOPPED = {128 + number for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
_TOLD_S = 5.0
_CONNECT_S = 8.0  # gloo waits five times as long for a first connection


class Processes:
    """This process among those of a run.

    Attributes:
        rank, world: its number, and how many there are, on all machines; `local_rank` on this one.
    """

    def __init__(self) -> None:
        self.rank, self.world = _number(RANK, 0), _number(WORLD_SIZE, 1)
        self.local_rank = _number(LOCAL_RANK, self.rank)
        self._store: Any = None

    def meet(self, timeout_s: float) -> None:
        """Wait until all of them are there; from here on each ends with its launcher."""
        if self.world == 1:
            return
        end_with_launcher()
        from torch.distributed import rendezvous

        url = os.environ.get(_RENDEZVOUS, "env://")
        wait = timedelta(seconds=timeout_s)
        try:
            self._store, *_ = next(rendezvous(url, self.rank, self.world, timeout=wait))
        except (RuntimeError, ValueError) as error:
            raise _not_met(error) from None

    def join(self, timeout_s: float, cuda: bool) -> None:
        """Connect them: gloo, and NCCL for tensors on GPUs.

        They have met, so it takes no time; but gloo at times waits for a connection that nobody
        makes, five times its time-out. Then they try once more.
        """
        if self.world == 1:
            return
        import torch.distributed as dist

        wait = timedelta(seconds=timeout_s if cuda else min(timeout_s, _CONNECT_S))
        for is_last in (False, True):
            try:
                dist.init_process_group(
                    "cpu:gloo,cuda:nccl" if cuda else "gloo",
                    store=dist.PrefixStore(f"again-{is_last}", self._store),
                    rank=self.rank,
                    world_size=self.world,
                    timeout=wait,
                )
                return
            except (RuntimeError, ValueError) as error:
                if is_last:
                    raise _not_met(error) from None

    def leave(self) -> None:
        """Close the connections."""
        if self.world > 1:
            import torch.distributed as dist

            with suppress(RuntimeError):
                if dist.is_initialized():
                    dist.destroy_process_group()

    def tells_first(self) -> bool:
        """Whether no other process has reported yet why the run ends: one message is enough."""
        if self._store is None:
            return True
        try:
            self._store.set_timeout(timedelta(seconds=_TOLD_S))
            return bool(self._store.add("worldflux/reported", 1) == 1)
        except RuntimeError:  # it was in a process that is gone
            return True


def _not_met(error: Exception) -> TrainingError:
    return TrainingError(f"the processes of this run do not meet: {str(error).splitlines()[0]}")


def _number(name: str, default: int) -> int:
    value = os.environ.get(name, str(default))
    if not value.isdecimal():
        raise ConfigurationError(f"the variable {name} = {value!r} is not a number")
    return int(value)


def started_by() -> list[str]:
    """The command words that start `worldflux train` on as many processes of this machine."""
    if _NPROC in os.environ or _number(WORLD_SIZE, 1) == 1:
        return ["worldflux"]
    local = str(_number(LOCAL_WORLD_SIZE, 1))
    return ["torchrun", "--nproc-per-node", local, "-m", "worldflux"]


def nproc_option() -> list[str]:
    """The option that starts as many processes again."""
    return ["--nproc", os.environ[_NPROC]] if _NPROC in os.environ else []


def train_command() -> str:
    """The command of this run without further options, for a hint that adds one."""
    return shlex.join([*started_by(), "train", *nproc_option()])


@cache  # one watch a process
def end_with_launcher() -> None:
    """Send this process SIGTERM, at which it saves and ends, once its launcher is gone.

    One that was killed can pass nothing on, and its processes would train on unseen. Those that
    somebody started by hand may outlive their shell.
    """
    if _LAUNCHER in os.environ:
        parent = _number(_LAUNCHER, 0)
    elif _TORCHRUN in os.environ:
        parent = os.getppid()
    else:
        return
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_S)
    os.kill(os.getpid(), signal.SIGTERM)


# ------------------------------------------------------------------ starting them


def launch(arguments: Sequence[str], count: int) -> int:
    """Run `worldflux train ARGUMENTS` in `count` processes of this machine; returns the exit code.

    Signals go on to each of them, once. When one fails, the others end too.

    Raises:
        TrainingError: when all of them were killed.
    """
    with tempfile.TemporaryDirectory(prefix="worldflux-") as folder:
        children = [_started(arguments, rank, count, folder) for rank in range(count)]

        def pass_on(number: int, frame: object) -> None:
            for child in children:
                if child.poll() is None:
                    child.send_signal(number)

        passed = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
        before = {number: signal.signal(number, pass_on) for number in passed}
        try:
            return _watched(children)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            for child in children:
                if child.poll() is None:
                    child.kill()
                child.wait()


def _started(
    arguments: Sequence[str], rank: int, count: int, folder: str
) -> subprocess.Popen[bytes]:
    variables = {
        RANK: rank,
        LOCAL_RANK: rank,
        WORLD_SIZE: count,
        LOCAL_WORLD_SIZE: count,
        _NPROC: count,
        _LAUNCHER: os.getpid(),
        _RENDEZVOUS: (Path(folder) / "rendezvous").as_uri(),
    }
    names = {name: str(value) for name, value in variables.items()}
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    return subprocess.Popen(
        [sys.executable, "-m", "worldflux", "train", *arguments],
        env={"GLOO_SOCKET_IFNAME": loopback, **os.environ, **names},
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl+C comes from here, once
    )


def _watched(children: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; one that fails gives the others a moment, then they are stopped."""
    failed_at = None
    while any(child.poll() is None for child in children):
        codes = {child.poll() for child in children}
        if failed_at is None and codes - {None, 0, *_STOPPED}:
            failed_at = time.monotonic()
        waited = 0.0 if failed_at is None else time.monotonic() - failed_at
        for child in children:
            if child.poll() is None and waited > 2 * _GRACE_S:
                child.kill()
            elif child.poll() is None and waited > _GRACE_S:
                child.terminate()
        time.sleep(_LOOK_S)
    ended = [int(child.returncode) for child in children]
    if all(code < 0 for code in ended):
        names = ", ".join(signal.Signals(-code).name for code in ended)
        raise TrainingError(f"every process of this run was killed ({names})")
    return next((code for code in ended if code > 0), 0)
