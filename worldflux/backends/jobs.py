"""Jobs that run official programs: submitted, found again by id, watched and cancelled.

A job is a folder below the cache folder: `job.json` (what runs and its status; one writer at a
time: who submits, then the supervisor), `supervisor.json` (which process watches it) and `cancel`
(somebody wants it to end). The supervisor (`worldflux.project.delegated`) is a process in its own
session, which outlives the Python that submitted it.
"""

from __future__ import annotations

import enum
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError, RunFolderError, did_you_mean
from worldflux.files import free_bytes, read_json_object, write_json
from worldflux.layout import JOB_LOG, cache_folder

from .scores import LineTail, plain

JOB, SUPERVISOR, CANCEL, RESERVE = "job.json", "supervisor.json", "cancel", ".reserve"
SUPERVISOR_LOG = "supervisor.log"
SUPERVISOR_MODULE = "worldflux.project.delegated"
# Room that is given back when the disk is full, so that the reason can still be written.
RESERVE_BYTES = 64 << 10
NEARLY_FULL_BYTES = 1 << 20
GRACE_S = 10.0
_POLL_S, _END_POLL_S = 0.1, 0.05
_START_LIMIT_S = 60.0
_READ_BACK_BYTES = 16 << 10
# "ModuleNotFoundError: No module named 'jax'", and the bare "AssertionError". The last line itself
# may be about something else: hydra's and JAX's advice on tracebacks, Python's on semaphores.
_ERROR = re.compile(r"^(\w+\.)*\w*(Error|Exception|Interrupt)(: .*)?$")


class JobStatus(enum.StrEnum):
    """The state of a job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)


class JobHandle:
    """A submitted job: its status, its logs, and the ways to wait for it or to end it.

    Attributes:
        id: finds the job again from any process: `JobHandle.find(id)`.
        folder: the job's own folder; its scores are in `output_dir`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.id = folder.name

    @classmethod
    def find(cls, job_id: str) -> JobHandle:
        """The job of that id, whoever submitted it.

        Raises:
            ConfigurationError: when there is none.
        """
        known = [job.id for job in list_jobs()]
        if job_id not in known:
            raise ConfigurationError(
                f"there is no job {job_id!r}",
                hint=did_you_mean(job_id, known) or "worldflux jobs list shows every job",
            )
        return cls(_jobs_folder() / job_id)

    def __repr__(self) -> str:
        return f"JobHandle({self.id!r}, {self.status})"

    @property
    def record(self) -> dict[str, Any]:
        """What runs, where and since when; see `status` and `reason` for its present state."""
        return read_json_object(self.folder / JOB, "job")

    @property
    def output_dir(self) -> Path:
        """The run folder: metrics.jsonl, eval.jsonl, run_manifest.json and the log."""
        return Path(self.record["output_dir"])

    @property
    def status(self) -> JobStatus:
        """Its status now."""
        return self.standing()[0]

    @property
    def reason(self) -> str | None:
        """Why it failed or was cancelled."""
        return self.standing()[1]

    def standing(self) -> tuple[JobStatus, str | None]:
        """Status and reason. A job whose supervisor died without recording one has failed."""
        record = self.record
        status = JobStatus(record["status"])
        if status.has_ended or self._is_watched(record):
            return status, record.get("reason")
        record = self.record  # it may have ended in between
        status = JobStatus(record["status"])
        if status.has_ended:
            return status, record.get("reason")
        program = ProcessIdentity.from_dict(record.get("program"))
        if (self.folder / CANCEL).exists() and (program is None or not program.is_alive):
            return JobStatus.CANCELLED, "cancelled"
        return JobStatus.FAILED, self._why_gone(record, program)

    def _is_watched(self, record: dict[str, Any]) -> bool:
        supervisor = _supervisor_of(self.folder)
        if supervisor is not None:
            reap(supervisor.pid)
            return supervisor.is_alive
        # An absolute difference: the clock may have been put back since.
        return abs(time.time() - float(record["submitted_at"])) < _START_LIMIT_S

    def _why_gone(self, record: dict[str, Any], program: ProcessIdentity | None) -> str:
        last = last_words(self.folder / SUPERVISOR_LOG)
        running = program is not None and program.is_alive
        words = [
            "the job's supervisor died without recording a reason (killed?)",
            disk_problem(Path(record["output_dir"])) or disk_problem(self.folder),
            f"its last words: {last}" if last else None,
            f"its program still runs; end it: worldflux jobs cancel {self.id}" if running else None,
        ]
        return "; ".join(filter(None, words))

    def logs(self, follow: bool = False, stop: Callable[[], bool] | None = None) -> Iterator[str]:
        """The lines that the program printed; with `follow`, further ones until it has ended.

        `stop` is asked between readings whether to stop following.
        """
        tail = LineTail(self.output_dir / JOB_LOG)
        while stop is None or not stop():
            ended = not follow or self.status.has_ended
            yield from tail.lines()
            if ended:
                yield from tail.rest()
                return
            time.sleep(_POLL_S)

    def wait(self, timeout_s: float | None = None) -> JobStatus:
        """Wait until the job has ended, or for `timeout_s` seconds; returns its status."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not (status := self.status).has_ended:
            if deadline is not None and time.monotonic() >= deadline:
                return status
            time.sleep(_POLL_S)
        return status

    def cancel(self, timeout_s: float = GRACE_S + 5.0) -> JobStatus:
        """End the job and every process of its program; a job that has ended stays as it is."""
        record = self.record
        program = ProcessIdentity.from_dict(record.get("program"))
        if not JobStatus(record["status"]).has_ended:
            (self.folder / CANCEL).touch()
            supervisor = _supervisor_of(self.folder)
            if supervisor is None or not supervisor.is_alive:
                if program is not None:
                    end_group(program, GRACE_S)
                return self.status
            self.wait(timeout_s)
        return self.status


def submit_job(record: dict[str, Any]) -> JobHandle:
    """Start a job, whose `job.json` begins with `record`, in a process that outlives this one."""
    output = Path(record["output_dir"])
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunFolderError(
            "the output folder of a delegated run must be new or empty",
            where=str(output),
            hint="choose another one: TrainingConfig(output_dir=...)",
        )
    now = time.time()
    name = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now)) + "-" + secrets.token_hex(3)
    folder = _jobs_folder() / name
    folder.mkdir(parents=True)
    state = {"id": name, "status": JobStatus.PENDING, "reason": None, "submitted_at": now}
    write_json(folder / JOB, {**record, **state})
    (folder / RESERVE).write_bytes(b"\0" * RESERVE_BYTES)
    pid = _spawn_supervisor(folder)
    # One that ended already has no identity any more; its job.json says how.
    identity = ProcessIdentity.of(pid) or ProcessIdentity(pid, "ended")
    write_json(folder / SUPERVISOR, identity.to_dict())
    return JobHandle(folder)


def list_jobs() -> list[JobHandle]:
    """Every job in this user's cache folder, oldest first."""
    root = _jobs_folder()
    if not root.is_dir():
        return []
    return [JobHandle(folder) for folder in sorted(root.iterdir()) if (folder / JOB).is_file()]


def _jobs_folder() -> Path:
    return cache_folder() / "jobs"


def disk_problem(folder: Path) -> str | None:
    """Words for a disk that is full, or None."""
    try:
        free = free_bytes(folder)
    except OSError:
        return None
    return None if free >= NEARLY_FULL_BYTES else f"the disk of {folder} is full ({free:,} B free)"


def _supervisor_of(folder: Path) -> ProcessIdentity | None:
    try:
        return ProcessIdentity.from_dict(read_json_object(folder / SUPERVISOR, "supervisor"))
    except (OSError, ConfigurationError):
        return None


def _spawn_supervisor(folder: Path) -> int:
    log = str(folder / SUPERVISOR_LOG)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", SUPERVISOR_MODULE, str(folder)],
        dict(os.environ),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, log, flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def last_words(path: Path) -> str | None:
    """The last error that a log names, or else its last line; None for an empty log."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _READ_BACK_BYTES))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return None
    lines = [line.strip() for line in plain(text).splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return next((line[:300] for line in reversed(errors or lines)), None)


# ------------------------------------------------------------------ processes that outlive us


@dataclass(frozen=True)
class ProcessIdentity:
    """A process by pid and start time: the same pid with another start is another process."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        """The identity of a process that runs now, or None."""
        started = _start_of(pid)
        return None if started is None else cls(pid, started)

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs (one that only waits to be reaped does not)."""
        return _start_of(self.pid) == self.started

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Any) -> ProcessIdentity | None:
        """The identity that `to_dict` wrote, or None for anything else."""
        match content:
            case {"pid": int(pid), "started": str(started)}:
                return cls(pid, started)
        return None


def reap(pid: int) -> None:
    """Take the exit code of a child of ours that nothing else waits for, where it has ended."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # another process submitted it
        return


def end_group(leader: ProcessIdentity, grace_s: float) -> None:
    """End a process group: SIGTERM, and SIGKILL for what is left after `grace_s` seconds.

    The group is that of `leader`, which must be alive, so that its number is still its own.
    """
    if not leader.is_alive:
        return
    _signal_group(leader.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while leader.is_alive and time.monotonic() < deadline:
        time.sleep(_END_POLL_S)
    # While a member lives the system gives the group's number to nobody else.
    _signal_group(leader.pid, signal.SIGKILL)


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _start_of(pid: int) -> str | None:
    if Path("/proc/self/stat").exists():
        try:
            text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        # The name in brackets may hold anything; after it come state (field 3) and start (22).
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    command = ["ps", "-o", "lstart=,stat=", "-p", str(pid)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    started, _, state = shown.rpartition(" ")
    return None if not shown or state.startswith("Z") else started.strip()
