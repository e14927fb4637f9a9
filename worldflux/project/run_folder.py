"""One trainer a folder: the lock, and who may write where."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from worldflux.errors import RunFolderError

from . import manifest

LOCK = ".lock"


class RunFolder:
    """The output folder of a run, locked while it is open.

    The lock is the operating system's (flock): it is free as soon as its holder is gone, however it
    went, so that no lock is ever stale. Over NFS, Linux carries flock to the server; a file system
    without locks is refused. What the file says (process, host, since when) is for messages only.

    Raises:
        RunFolderError: when another trainer holds it, it belongs to another project, it holds a
            finished or interrupted run and `resume` is False, or something that is no run.
    """

    def __init__(self, path: Path, project_name: str, *, resume: bool) -> None:
        self.path = path
        self._claim = (path, project_name, resume)
        _refuse_foreign(*self._claim)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = os.fdopen(os.open(path / LOCK, flags, 0o666), "r+", encoding="utf-8")
        except OSError as error:
            raise RunFolderError(
                f"the output folder cannot be written: {error.strerror}",
                where=str(path),
                hint="choose another one with --output-dir DIR",
            ) from None

    def __enter__(self) -> RunFolder:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(self.path / LOCK)
            self._lock.close()
            raise RunFolderError(
                f"another trainer is at work in this folder ({holder})",
                where=str(self.path),
                hint="wait for it, stop it, or choose another folder with --output-dir DIR",
            ) from None
        except OSError as error:
            self._lock.close()
            raise RunFolderError(
                f"the output folder's file system has no locks: {error.strerror}",
                where=str(self.path),
                hint="choose a folder on a local disk with --output-dir DIR",
            ) from None
        try:  # again: another trainer may have run here between the first look and the lock
            _refuse_foreign(*self._claim)
        except RunFolderError:
            self._lock.close()
            raise
        for leftover in self.path.glob(".*.tmp"):  # of a trainer that was killed while writing
            leftover.unlink(missing_ok=True)
        self._lock.truncate(0)
        owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        self._lock.write(json.dumps(owner))
        self._lock.flush()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.close()


def _refuse_foreign(path: Path, project_name: str, resume: bool) -> None:
    if not path.exists():
        if resume:
            raise RunFolderError(
                "there is no run to resume", where=str(path), hint="start one: worldflux train"
            )
        return
    if not path.is_dir():
        raise RunFolderError("the output folder is a file", where=str(path))
    others = [entry.name for entry in path.iterdir() if not _left_before_manifest(entry)]
    if (path / manifest.FILE).is_file():
        found = manifest.read_manifest(path).get("project_name")
        if found != project_name:
            raise RunFolderError(
                f"this folder holds a run of another project, {found!r}",
                where=str(path),
                hint="choose another one with --output-dir DIR",
            )
        if not resume:
            raise RunFolderError(
                "this folder already holds a run",
                where=str(path),
                hint="go on with it: worldflux train --resume; or start beside it: "
                "worldflux train --output-dir DIR",
            )
    elif others and not resume:
        raise RunFolderError(
            f"this folder is not empty and holds no run ({', '.join(sorted(others)[:3])})",
            where=str(path),
            hint="choose another one with --output-dir DIR",
        )
    elif resume:
        raise RunFolderError(
            "there is no run to resume", where=str(path), hint="start one: worldflux train"
        )


def _left_before_manifest(entry: Path) -> bool:
    """What a trainer leaves that was killed before its manifest stood: no run, and no hindrance."""
    if entry.name == "replay":  # rows mapped from a file without a name
        return entry.is_dir() and not any(entry.iterdir())
    unfinished = entry.name.startswith(f".{manifest.FILE}.") and entry.name.endswith(".tmp")
    return entry.name == LOCK or unfinished


def _holder(path: Path) -> str:
    for _ in range(20):  # it may have the lock for an instant before it has written its name
        try:
            owner = json.loads(path.read_text(encoding="utf-8"))
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.01)
    return "its process is not known"
