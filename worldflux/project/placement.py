"""Put generated files into a folder: nothing is deleted, nothing outside it is touched.

A new folder appears complete, by one rename. In a folder that exists, each file is replaced at
once and worldflux.toml comes last, so that an interrupted `init` leaves no half project.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worldflux.errors import ConfigurationError
from worldflux.files import write_text

OURS = ".worldflux/"
KEPT = ("README.md", ".gitignore")  # a folder's own, which is not replaced unless asked


@dataclass(frozen=True)
class Placement:
    """What writing `files` under `root` would do.

    `existing` files have other content; those of `KEPT` are not ours to replace, and `same` ones
    have what would be written. `blocked` names what can never be replaced, with the reason: a link,
    a folder, a device.
    """

    root: Path
    files: Mapping[str, str]
    new: tuple[str, ...]
    existing: tuple[str, ...]
    blocked: tuple[str, ...]
    kept: tuple[str, ...] = ()
    same: tuple[str, ...] = ()


def examine(root: Path, files: Mapping[str, str], *, replace: bool = False) -> Placement:
    """Look at the target without changing it.

    Args:
        replace: whether a README.md or .gitignore that exists is replaced as the others are.
    """
    if root.is_symlink() or (root.exists() and not root.is_dir()):
        kind = "a link that leads nowhere" if root.is_symlink() else "not a folder"
        return Placement(root, files, (), (), (f"{root.name} is {kind}",))
    new, existing, blocked, kept, same = [], [], [], [], []
    for name in files:
        reason = _obstacle(root, name)
        if reason:
            blocked.append(reason)
        elif not (root / name).exists():
            new.append(name)
        elif name.startswith(OURS):
            continue  # written in any case: made from this version, for the editor
        elif (root / name).read_bytes() == files[name].encode():
            same.append(name)
        elif name in KEPT and not replace:
            kept.append(name)
        else:
            existing.append(name)
    obstacles = tuple(dict.fromkeys(blocked))
    return Placement(root, files, tuple(new), tuple(existing), obstacles, tuple(kept), tuple(same))


def _obstacle(root: Path, name: str) -> str | None:
    target = root / name
    for folder in reversed(target.relative_to(root).parents[:-1]):
        place = root / folder
        if place.is_symlink():
            return f"{folder} is a symbolic link"
        if place.exists() and not place.is_dir():
            return f"{folder} is not a folder"
    if target.is_symlink():
        return f"{name} is a symbolic link"
    if target.exists() and not target.is_file():
        return f"{name} is not a regular file"
    return None


def write(placement: Placement) -> dict[str, str]:
    """Write every file of an unblocked placement; returns the copy kept of each that is replaced.

    Raises:
        ConfigurationError: when the folder cannot be written; what stood there still does.
    """
    assert not placement.blocked, "blocked placements are refused before they are written"
    unchanged = {*placement.kept, *placement.same}
    files = {name: text for name, text in placement.files.items() if name not in unchanged}
    try:
        if placement.root.exists():
            copies = {name: _copied(placement.root / name) for name in placement.existing}
            _write_into(placement.root, files)
            return copies
        _create(placement.root, files)
        return {}
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigurationError(
            f"the project cannot be written: {reason}", where=str(placement.root)
        ) from None


def _copied(file: Path) -> str:
    """Copy a file beside itself, over nothing; returns the copy's name."""
    number = 0
    while os.path.lexists(copy := file.with_name(f"{file.name}.bak{number or ''}")):
        number += 1
    try:
        shutil.copy2(file, copy)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    return copy.name


def _write_into(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        target = folder / name
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True)
        write_text(target, text)


def _create(root: Path, files: Mapping[str, str]) -> None:
    if not root.parent.is_dir():
        root.parent.mkdir(parents=True)
    staging = root.with_name(f".{root.name}.{os.getpid()}.tmp")
    staging.mkdir()
    try:
        _write_into(staging, files)
        staging.rename(root)
    except BaseException:
        _remove(staging, files)
        raise


def _remove(staging: Path, files: Mapping[str, str]) -> None:
    """Remove our own unfinished folder: the files that we wrote, then the empty folders."""
    folders = {staging}
    for name in files:
        (staging / name).unlink(missing_ok=True)
        folders.add((staging / name).parent)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()
