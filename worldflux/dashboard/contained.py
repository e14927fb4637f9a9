"""Opening files of a run folder without ever leaving it.

Every component is opened relative to the directory above it with O_NOFOLLOW, so a symbolic link
that somebody puts into a run folder leads nowhere, and there is no moment between a check and the
use of a path.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """One directory entry: its name, size in bytes and time of change in unix seconds."""

    name: str
    size_bytes: int
    modified: float


@contextmanager
def open_contained(root: Path, *names: str) -> Iterator[int]:
    """The file descriptor of the regular file `root/names[0]/...`, closed on leaving.

    Raises:
        FileNotFoundError: it is missing, not a regular file, behind a link, or a name is not one
            plain path component.
    """
    fd = _open(root, names, os.O_RDONLY | os.O_NONBLOCK)
    try:
        # O_NONBLOCK keeps a named pipe from hanging the open; here it is refused.
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FileNotFoundError(f"not a regular file: {'/'.join(names)}")
        yield fd
    finally:
        os.close(fd)


def list_contained(root: Path, *names: str, directories: bool = False) -> list[Entry]:
    """The regular files (or the directories) in `root/names...`, sorted by name; [] if missing."""
    try:
        fd = _open(root, names, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return []
    try:
        with os.scandir(fd) as entries:
            found = []
            for entry in entries:
                wanted = entry.is_dir if directories else entry.is_file
                if wanted(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append(Entry(entry.name, status.st_size, status.st_mtime))
        return sorted(found)
    finally:
        os.close(fd)


def _open(root: Path, names: tuple[str, ...], last_flags: int) -> int:
    if any(name in ("", ".", "..") or "/" in name or "\0" in name for name in names):
        raise FileNotFoundError("a name is not one plain path component")
    directory_flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        # The root is the user's own word: it may be a link. What lies below may not.
        fd = os.open(root, directory_flags if names else last_flags)
        for index, name in enumerate(names):
            flags = last_flags if index == len(names) - 1 else directory_flags
            parent, fd = fd, -1
            try:
                fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=parent)
            finally:
                os.close(parent)
    except OSError as error:
        raise FileNotFoundError(f"cannot open {'/'.join(names)}: {error.strerror}") from error
    return fd
