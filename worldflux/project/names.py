"""The rules for names and folders that `worldflux init` creates.

A project's name is 1 to 63 ASCII letters, digits, `.`, `_` and `-`, begins with a letter or digit,
does not end with a dot, and is none of the names that Windows keeps for devices. Such a name is the
same thing in a shell, in TOML, in Python, in a URL and on every file system. A folder may have
spaces and letters of any script; its project takes the nearest name.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from worldflux.errors import ConfigurationError

MAX_NAME_CHARS = 63
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
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


def check_name(name: str) -> str:
    """The name itself.

    Raises:
        ConfigurationError: for a name that breaks the rule above.
    """
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

    Raises:
        ConfigurationError: for a new folder whose name breaks the rule, or one that cannot be used.
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
    whole = _NAME.fullmatch(name) and not name.endswith(".") and ".." not in name
    return bool(whole) and not _is_device(name)


def _is_device(name: str) -> bool:
    return name.split(".")[0].lower() in _DEVICES
