"""Several `worldflux train` processes at once: started, shown on one screen, stopped together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from worldflux.layout import HEARTBEAT, RUN_MANIFEST
from worldflux.progress import Progress, duration
from worldflux.project.signals import graceful_stop
from worldflux.run_log import parse_row

POLL_S = 0.2
_PR_SET_PDEATHSIG = 1
_LOG_END_BYTES = 20_000
TRAIN = (sys.executable, "-m", "worldflux", "train")


@dataclass(eq=False)
class Job:
    """One run in its own process; what it prints goes to `FOLDER.log`, next to its folder."""

    folder: Path
    command: Sequence[str]
    began: float = 0.0
    process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.name}.log")

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the process in a separate group: its parent passes Ctrl+C on."""
        self.began = time.time()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                process_group=0,
                preexec_fn=_end_with_parent(),
            )

    def send(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.process is not None:
            self.process.send_signal(number)

    def exit_code(self) -> int | None:
        """The exit code once the process has ended; 128 + N where signal N ended it."""
        code = None if self.process is None else self.process.poll()
        return code if code is None or code >= 0 else 128 - code

    def beat(self) -> dict[str, Any]:
        """Where the run is, as its heartbeat says."""
        return _read(self.folder / HEARTBEAT)

    def manifest(self) -> dict[str, Any]:
        """The run's manifest; empty before it has one."""
        return _read(self.folder / RUN_MANIFEST)

    def error(self) -> str:
        """The last error of the log, or what it ends with."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _LOG_END_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
            errors = [line for line in lines if line.startswith("error: ")]
            return (errors or lines or [""])[-1].removeprefix("error: ")
        return ""


class Source(Protocol):
    """What `run_jobs` asks for the next job and tells what became of it."""

    def next(self) -> Job | None:
        """A job to start now, if there is one."""
        ...

    def is_exhausted(self) -> bool:
        """Whether `next` will never give another job while none is running."""
        ...

    def watch(self, job: Job) -> None:
        """Look at a job that is running."""
        ...

    def ended(self, job: Job, code: int, stopping: bool) -> None:
        """Take the exit code of a job; `stopping`: all of them have been asked to stop."""
        ...

    def progress(self) -> tuple[int, list[str]]:
        """How far all of it is, in the units of the screen's phase, and facts to show first."""
        ...


def run_jobs(source: Source, jobs: int, screen: Progress) -> int | None:
    """Run what a source gives, `jobs` at a time; a stopping signal goes to every running job.

    Returns:
        128 + N after signal N, when every job has saved and ended; None without one.
    """
    running: list[Job] = []
    environment = _environment(jobs)

    def send(number: int) -> None:
        for job in running:
            job.send(number)

    def stop() -> None:
        send(signal.SIGTERM)
        screen.stopping()

    with graceful_stop(stop, lambda: send(signal.SIGUSR1)) as stopping:
        while True:
            while stopping.signal_number is None and len(running) < jobs:
                if (job := source.next()) is None:
                    break
                job.start(environment)
                running.append(job)
                if stopping.signal_number is not None:  # it came while this one was started
                    job.send(signal.SIGTERM)
            if not running and (stopping.signal_number is not None or source.is_exhausted()):
                break
            time.sleep(POLL_S)
            for job in [*running]:
                code = job.exit_code()
                source.watch(job)
                if code is not None:
                    running.remove(job)
                    source.ended(job, code, stopping.signal_number is not None)
            if screen.due():
                done, facts = source.progress()
                screen.show(done, [*facts, *(_shown(job) for job in running)])
    return None if stopping.signal_number is None else stopping.exit_code


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none yet."""
    with suppress(OSError):
        return parse_row(path.read_bytes()) or {}
    return {}


def _shown(job: Job) -> str:
    beat = job.beat()
    if not beat or beat.get("time", 0.0) < job.began:
        return f"{job.name} starting"
    left = beat.get("left_s")
    rest = f", {duration(left)} left" if isinstance(left, (int, float)) and left else ""
    return f"{job.name} {beat.get('step')}/{beat.get('total_steps')} ({beat.get('phase')}{rest})"


def _environment(jobs: int) -> Mapping[str, str]:
    """The environment of a job: it gets its share of the cores, unless OMP_NUM_THREADS says."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = str(max(1, (usable or 1) // jobs))
    return os.environ if jobs == 1 else {"OMP_NUM_THREADS": share, **os.environ}


def _end_with_parent() -> Callable[[], None] | None:
    """On Linux: the process saves and ends (SIGTERM) when whoever started it dies."""
    if not sys.platform.startswith("linux"):
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)

    return prepare
