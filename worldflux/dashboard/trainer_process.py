"""The trainer behind a run folder: whether it lives, and the memory it takes."""

from __future__ import annotations

import fcntl
import os
import socket
from dataclasses import dataclass
from pathlib import Path

from worldflux.dashboard.contained import open_contained
from worldflux.dashboard.history import to_count, to_number
from worldflux.layout import LOCK
from worldflux.run_log import parse_row

MAX_LOCK_BYTES = 4096


@dataclass(frozen=True)
class TrainerProcess:
    """A living trainer: memory in bytes, unix time of its start; None where nothing tells."""

    memory_bytes: int | None
    machine_memory_bytes: int | None
    since: float | None = None


def find_trainer(folder: Path) -> TrainerProcess | None:
    """The process that holds the folder's lock (flock), or None when nobody does."""
    try:
        with open_contained(folder, LOCK) as fd:
            try:
                # Asking takes the lock for a moment, but only where nobody holds it.
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _measure(os.pread(fd, MAX_LOCK_BYTES, 0))
            fcntl.flock(fd, fcntl.LOCK_UN)
    except FileNotFoundError:
        pass
    return None


def _measure(lock_text: bytes) -> TrainerProcess:
    owner = parse_row(lock_text) or {}
    pid, since = to_count(owner.get("pid")), to_number(owner.get("since"))
    if pid is None or owner.get("host") != socket.gethostname():
        return TrainerProcess(None, None, since)
    try:
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        resident_pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
        machine_bytes = os.sysconf("SC_PHYS_PAGES") * page_bytes
        return TrainerProcess(resident_pages * page_bytes, machine_bytes, since)
    except (OSError, ValueError, IndexError):
        return TrainerProcess(None, None, since)
