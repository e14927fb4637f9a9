"""One trainer a folder: the lock, and who may write where."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from worldflux.errors import RunFolderError
from worldflux.layout import CHECKPOINTS, HEARTBEAT, LOCK, REPLAY, RUN_MANIFEST

from .manifest import holds_a_run, read_manifest

_ALONE = {RUN_MANIFEST, HEARTBEAT}  # all that a start leaves which failed at once
RESUME = "worldflux train --resume"
_ANOTHER = "choose another one with --output-dir DIR"


class RunFolder:
    """The output folder of a run, locked while it is open.

    The lock is the operating system's (flock): it is free as soon as its holder is gone, so that no
    lock is ever stale. Over NFS, Linux carries flock to the server; a file system without locks is
    refused. What the file says (process, host, since when) is for messages only.

    Until `begin`, nothing in the folder has changed: whoever is refused, or fails before, leaves
    the run that is there as it was.

    Args:
        overwrite: `begin` moves a run of this project that is here aside.
        command: the command that resumes this run, for hints.

    Raises:
        RunFolderError: when another trainer holds it, it belongs to another project, it holds a
            run with a checkpoint and neither `resume` nor `overwrite` is set, or something that is
            no run.
    """

    def __init__(
        self,
        path: Path,
        project_name: str,
        *,
        resume: bool,
        overwrite: bool = False,
        command: str = RESUME,
    ) -> None:
        self.path = path.resolve()  # moving a run aside must not move a link to it
        self._project_name, self._resume = project_name, resume
        self._overwrite, self.command = overwrite, command
        self._begun = False
        self.check()

    def check(self) -> None:
        """Refuse a folder that this run may not write to; touches nothing."""
        path = self.path
        if path.exists() and not path.is_dir():
            raise RunFolderError("the output folder is a file", where=str(path))
        if not holds_a_run(path):
            self._check_no_run()
            return
        try:
            content = read_manifest(path)
        except RunFolderError:
            if self._overwrite:  # it is only moved
                return
            raise
        owner = content.get("project_name")
        if owner != self._project_name:
            raise self._refusal(f"this folder holds a run of another project, {owner!r}")
        is_kept = "delegated" in content or any((path / CHECKPOINTS).glob("step-*"))
        if is_kept and not self._resume and not self._overwrite:
            raise self._refusal(
                "this folder already holds a run",
                f"continue it: {self.command}; start over and keep the old run as a copy: "
                "--overwrite; or choose another folder: --output-dir DIR",
            )

    def _check_no_run(self) -> None:
        if self._resume:
            hint = f"start one: {self.command.replace(' --resume', '', 1)}"
            if " --resume" in self.command and (seeds := _seeds_in(self.path)):
                again = self.command.replace(" --resume", f" --seeds {seeds} --resume", 1)
                hint = f"continue the runs of several seeds: {again}"
            raise self._refusal("there is no run to resume", hint)
        if not self.path.exists():
            return
        others = sorted(e.name for e in self.path.iterdir() if not _left_before_manifest(e))
        if others:
            names = ", ".join(others[:3])
            raise self._refusal(f"this folder is not empty and holds no run ({names})")

    def _refusal(self, message: str, hint: str = _ANOTHER) -> RunFolderError:
        return RunFolderError(message, where=str(self.path), hint=hint)

    def __enter__(self) -> RunFolder:
        self._is_new = not self.path.exists()
        self._lock = self._locked()
        try:  # again: another trainer may have run here between the first look and the lock
            self.check()
        except RunFolderError:
            self._lock.close()
            raise
        self._earlier_owner = self._lock.read()
        self._write_owner(_owner())
        return self

    def _locked(self) -> TextIO:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.fdopen(os.open(self.path / LOCK, flags, 0o666), "r+", encoding="utf-8")
        except OSError as error:
            message = f"the output folder cannot be written: {error.strerror}"
            raise self._refusal(message) from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise self._refusal(
                f"another trainer is at work in this folder ({_holder(self.path / LOCK)})",
                "wait for it, stop it, or choose another folder with --output-dir DIR",
            ) from None
        except OSError as error:
            lock.close()
            raise self._refusal(
                f"the output folder's file system has no locks: {error.strerror}",
                "choose a folder on a local disk with --output-dir DIR",
            ) from None
        if os.fstat(lock.fileno()).st_nlink == 0:  # its holder has removed the folder since
            lock.close()
            return self._locked()
        return lock

    def begin(self) -> Path | None:
        """Make room for this run to write; returns where an earlier one was moved to, if it was.

        What a start left that ended before its first checkpoint is moved aside too, unless it is
        a manifest and nothing more.

        Raises:
            RunFolderError: when it cannot be moved.
        """
        for leftover in self.path.rglob(".*.tmp"):  # of a trainer that was killed while writing
            leftover.unlink(missing_ok=True)
        others = [e for e in self.path.iterdir() if not _left_before_manifest(e)]
        moved = None
        if not self._resume and any(entry.name not in _ALONE for entry in others):
            moved = self._move_aside()
        self._begun = True
        return moved

    def _move_aside(self) -> Path:
        self._write_owner(self._earlier_owner)
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.{number}")).exists():
            number += 1
        try:
            os.rename(self.path, aside)
        except OSError as error:
            message = f"the earlier run cannot be moved to {aside.name}: {error.strerror}"
            raise self._refusal(message) from None
        earlier, self._lock = self._lock, self._locked()
        earlier.close()
        self._write_owner(_owner())
        return aside

    def _write_owner(self, text: str) -> None:
        self._lock.seek(0)
        self._lock.truncate()
        self._lock.write(text)
        self._lock.flush()

    def __exit__(self, *exception: object) -> None:
        if not self._begun:
            self._write_owner(self._earlier_owner)
            if self._is_new and [entry.name for entry in self.path.iterdir()] == [LOCK]:
                (self.path / LOCK).unlink()
                with suppress(OSError):  # another trainer has just made its lock
                    self.path.rmdir()
        self._lock.close()


def _owner() -> str:
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()})


def _seeds_in(folder: Path) -> str:
    """The seeds whose runs a folder holds, as `worldflux train --seeds` takes them."""
    names = [run.name.removeprefix("seed-") for run in folder.glob("seed-*") if holds_a_run(run)]
    numbers = sorted(int(name) for name in names if name.isdecimal())
    return ",".join(map(str, numbers)) + "," * (len(numbers) == 1)


def _left_before_manifest(entry: Path) -> bool:
    """What a trainer leaves that was killed before it wrote its manifest: no run."""
    if entry.name == REPLAY:  # rows mapped from a file without a name
        return entry.is_dir() and not any(entry.iterdir())
    unfinished = entry.name.startswith(f".{RUN_MANIFEST}.") and entry.name.endswith(".tmp")
    return entry.name == LOCK or unfinished


def _holder(path: Path) -> str:
    for _ in range(20):  # it may have the lock for an instant before it has written its name
        try:
            owner = json.loads(path.read_text(encoding="utf-8"))
            return f"process {owner['pid']} on {owner['host']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.01)
    return "its process is not known"
