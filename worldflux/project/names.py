"""The one rule for names and folders that `worldflux init` creates.

A name is 1 to 63 ASCII letters, digits, `.`, `_` and `-`, begins with a letter or digit, does not
end with a dot, and is none of the names that Windows keeps for devices. Such a name is the same
thing in a shell, in TOML, in Python, in a URL and on every file system.
"""

from __future__ import annotations

import re
from pathlib import Path

from worldflux.errors import ConfigurationError

MAX_NAME_CHARS = 63
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_DEVICES = {"con", "prn", "aux", "nul"} | {f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10)}
_RULE = (
    "a name has 1 to 63 letters, digits, '.', '_' or '-', begins with a letter or digit "
    "and does not end with a dot"
)


def check_name(name: str) -> str:
    """The name itself.

    Raises:
        ConfigurationError: for a name that breaks the rule above.
    """
    reserved = name.split(".")[0].lower() in _DEVICES
    if reserved or not _NAME.fullmatch(name) or name.endswith(".") or ".." in name:
        shown = ascii(name if len(name) <= 60 else name[:57] + "...")
        reason = "is reserved by Windows" if reserved else "is not allowed"
        raise ConfigurationError(f"the project name {shown} {reason}", hint=_RULE)
    return name


def check_folder(path: str) -> Path:
    """The folder to create, absolute and with symbolic links resolved.

    Folders that exist may be called anything; each that would be created keeps the rule of names.

    Raises:
        ConfigurationError: for `..`, `~`, or a new folder whose name breaks the rule.
    """
    if not path or "\0" in path:
        raise ConfigurationError(f"the folder {path!a} is not allowed", hint=_RULE)
    given = Path(path)
    if ".." in given.parts or given.parts[:1] == ("~",):
        raise ConfigurationError(
            f"the folder {path[:200]!a} is not allowed: '..' and '~' are not followed",
            hint="give a folder below this one, or an absolute path",
        )
    try:
        target = given.absolute()
        new = [folder for folder in (target, *target.parents) if not folder.exists()]
        for folder in new:
            check_name(folder.name)
        return target if target.is_symlink() and not target.exists() else target.resolve()
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"the folder {path[:60]!a} cannot be used: {reason}") from None
