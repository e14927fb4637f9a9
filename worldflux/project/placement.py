"""Where `worldflux init` puts a project: its name, its folder and its files.

Nothing is deleted, and nothing outside the folder is touched. A new folder appears complete, by one
rename. In a folder that exists each file is replaced at once and worldflux.toml comes last, so that
an interrupted `init` leaves no half project.
"""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from worldflux.errors import ConfigurationError
from worldflux.files import write_text

OURS = ".worldflux/"
KEPT = ("README.md", ".gitignore")  # a folder's own, which is not replaced unless asked
MAX_NAME_CHARS = 63
# The same thing in a shell, in TOML, in Python, in a URL and on every file system.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_-]|\.(?!\.|$)){0,62}")
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)}
_NO_FOLDER = set("\"'`$\\|<>*?;&{}%")
NAME_RULE = (
    "a name has 1 to 63 letters, digits, '.', '_' or '-', begins with a letter or digit "
    "and does not end with a dot"
)
_FOLDER_RULE = (
    "a new folder has letters of any script, digits, spaces and '.', '_', '-', "
    "and begins with a letter or digit"
)


# --------------------------------------------------------------------------- names


def check_name(name: str) -> str:
    """The name, or a ConfigurationError that says the rule."""
    if not _is_name(name):
        shown = ascii(name if len(name) <= 60 else name[:57] + "...")
        reason = "is reserved by Windows" if _is_device(name) else "is not allowed"
        raise ConfigurationError(f"the project name {shown} {reason}", hint=NAME_RULE)
    return name


def name_from(folder: str, default: str) -> str:
    """The project name nearest to a folder's: `My Robot ü` gives `My-Robot-u`."""
    if _is_name(folder):
        return folder
    plain = unicodedata.normalize("NFKD", folder).encode("ascii", "ignore").decode()
    words = re.findall(r"[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*", plain)
    name = "-".join(words).lstrip("_")[:MAX_NAME_CHARS].rstrip("-.")
    return name if _is_name(name) else default


def check_folder(path: str) -> Path:
    """The folder to create, absolute and with `..`, `~` and symbolic links resolved.

    Folders that exist may be called anything; each that would be created keeps the rule of folders.
    """
    if not path or "\0" in path:
        raise ConfigurationError(f"the folder {path!a} is not allowed", hint=_FOLDER_RULE)
    try:
        target = Path(path).expanduser().absolute()
        if target.is_symlink() and not target.exists():
            return target
        target = target.resolve()
        for folder in (target, *target.parents):
            if not folder.exists():
                _check_new_folder(folder.name)
        return target
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"the folder {path[:60]!a} cannot be used: {reason}") from None


def _check_new_folder(name: str) -> None:
    usable = name.isprintable() and name == name.strip() and not set(name) & _NO_FOLDER
    if not usable or not name[0].isalnum() or _is_device(name):
        raise ConfigurationError(f"the folder {name[:60]!a} is not allowed", hint=_FOLDER_RULE)


def _is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and not _is_device(name)


def _is_device(name: str) -> bool:
    return name.split(".")[0].lower() in _DEVICES


# --------------------------------------------------------------------------- files


@dataclass(frozen=True)
class Placement:
    """What writing `files` under `root` would do.

    `existing` files have other content; those of `KEPT` are not ours to replace, and `same` ones
    have what would be written. `blocked` names what can never be replaced, with the reason: a link,
    a folder, a device.
    """

    root: Path
    files: Mapping[str, str]
    new: tuple[str, ...] = ()
    existing: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    same: tuple[str, ...] = ()


def examine(root: Path, files: Mapping[str, str], *, replace: bool = False) -> Placement:
    """Look at the target without changing it.

    Args:
        replace: whether a README.md or .gitignore that exists is replaced as the others are.
    """
    if root.is_symlink() or (root.exists() and not root.is_dir()):
        kind = "a link that leads nowhere" if root.is_symlink() else "not a folder"
        return Placement(root, files, blocked=(f"{root.name} is {kind}",))
    new, existing, blocked, kept, same = [], [], [], [], []
    for name in files:
        if reason := obstacle(root, name):
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


def obstacle(root: Path, name: str) -> str | None:
    """Why a file cannot be placed: a link in its way, or something of another kind."""
    path = Path(name)
    for part in (*reversed(path.parents[:-1]), path):
        place, kind = root / part, "regular file" if part == path else "folder"
        if place.is_symlink():
            return f"{part} is a symbolic link"
        if place.exists() and not (place.is_file() if part == path else place.is_dir()):
            return f"{part} is not a {kind}"
    return None


def write(placement: Placement) -> dict[str, str]:
    """Write the files of an unblocked placement; returns the copy kept of each replaced one."""
    assert not placement.blocked, "blocked placements are refused before they are written"
    root, unchanged = placement.root, {*placement.kept, *placement.same}
    unchanged |= {f"{OURS}base/{name}" for name in placement.kept}  # theirs has no base of ours
    files = {name: text for name, text in placement.files.items() if name not in unchanged}
    try:
        if root.exists():
            copies = {name: copied(root / name) for name in placement.existing}
            _write_into(root, files)
            return copies
        if not root.parent.is_dir():
            root.parent.mkdir(parents=True)
        staging = root.with_name(f".{root.name}.{os.getpid()}.tmp")
        staging.mkdir()
        try:
            _write_into(staging, files)
            staging.rename(root)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return {}
    except OSError as error:
        reason = f"the project cannot be written: {error.strerror or error}"
        raise ConfigurationError(reason, where=str(root)) from None


def copied(file: Path) -> str:
    """Copy a file next to itself, over nothing; returns the copy's name."""
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
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(folder / name, text)
