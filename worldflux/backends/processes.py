"""Processes that outlive us: who they are (a pid can be given away again), and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_POLL_S = 0.05


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
        """JSON-ready values."""
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
        time.sleep(_POLL_S)
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
