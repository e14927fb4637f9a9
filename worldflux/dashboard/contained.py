"""Opening files of a run folder without leaving it: links inside it are not followed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO, NamedTuple


class Entry(NamedTuple):
    """One directory entry: its name, size in bytes and time of change in unix seconds."""

    name: str
    size_bytes: int
    modified: float


def contained(root: Path, *names: str) -> Path:
    """The path `root/names[0]/...`; what it names may be missing.

    Raises:
        FileNotFoundError: a name is not one plain path component, or a link (`root` may be one).
    """
    path = root
    for name in names:
        path = path / name
        if name in ("", ".", "..") or "/" in name or "\0" in name or path.is_symlink():
            raise FileNotFoundError(f"{'/'.join(names)} may lead out of {root}")
    return path


def open_contained(root: Path, *names: str) -> BinaryIO:
    """The regular file `root/names[0]/...`, open for reading.

    Raises:
        FileNotFoundError: see `contained`; or it is no regular file, or may not be read.
    """
    path = contained(root, *names)
    try:
        if path.is_file():  # a named pipe would never open
            return path.open("rb")
    except OSError as error:
        raise FileNotFoundError(f"cannot open {path}: {error.strerror}") from error
    raise FileNotFoundError(f"not a regular file: {path}")


def list_contained(root: Path, *names: str, directories: bool = False) -> list[Entry]:
    """The regular files (or the directories) in `root/names...`, sorted by name; [] if missing."""
    found = []
    try:
        with os.scandir(contained(root, *names)) as entries:
            for entry in entries:
                wanted = entry.is_dir if directories else entry.is_file
                if wanted(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append(Entry(entry.name, status.st_size, status.st_mtime))
    except OSError:
        return []
    return sorted(found)
