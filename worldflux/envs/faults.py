"""An environment that failed: which one, doing what, where in whose code, and what helps."""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from pathlib import Path
from typing import Any

from .requirements import missing_renderer
from .returned import API_HINT, BadValue

_PYTHON = sysconfig.get_path("stdlib") + os.sep
_OURS = str(Path(__file__).parents[1]) + os.sep
_PACKAGES = ("site-packages", "dist-packages")
_UNEXPECTED = re.compile(r"([\w.<>]+)\(\) got an unexpected keyword argument '(\w+)'")
_WRAPPERS = (f"{os.sep}gymnasium{os.sep}wrappers{os.sep}", f"{os.sep}gymnasium{os.sep}core.py")
_RENDERERS = ("OpenGL", "mujoco", "dm_control")


class Broken(Exception):
    """An environment failed: its index, the key, what it did, where in the code, what helps."""

    def __init__(
        self, index: int, key: str, problem: str, where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(index, key, problem, where, hint)
        self.index, self.key, self.problem = index, key, problem
        self.where, self.hint = where, hint


def broken_by(index: int, key: str, error: BaseException, called: Any = None) -> Broken:
    """What the trainer is told when `error` ended a call of environment `index`.

    Args:
        key: "make", "reset", "step" or "render".
        called: the environment's function, named where it cannot be called as it has to be.
    """
    if isinstance(error, BadValue):
        return Broken(index, error.key, error.problem, hint=error.hint)
    where = place(error)
    if isinstance(error, SystemExit):
        return Broken(index, key, f"called exit({error.code!r})", where)
    hint = renderer_hint(error)
    unexpected = _UNEXPECTED.search(str(error))
    if unexpected and unexpected[2] == "render_mode":
        hint = f"give {unexpected[1]} a parameter render_mode=None"
    elif key in ("reset", "step") and (unexpected or _is_calls_own(error)):
        hint, code = API_HINT, getattr(called, "__code__", None)
        if code is not None and not _frames(error):
            where = f"{code.co_filename}:{code.co_firstlineno}"
    return Broken(index, key, f"raised {described(error)}", where, hint)


def described(error: BaseException) -> str:
    """The type and text of an exception; the line that raised one without text."""
    text = str(error)
    if not text:
        frames = traceback.extract_tb(error.__traceback__)
        text = str(frames[-1].line or "") if frames else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def place(error: BaseException) -> str | None:
    """`file:line` in the user's code that an exception came through last, else in a package's."""
    frames = _frames(error) or _frames(error, installed=True)
    return f"{frames[-1].filename}:{frames[-1].lineno}" if frames else None


def renderer_hint(error: BaseException) -> str | None:
    """What helps where MuJoCo was told to draw with a library that is not there."""
    obstacle = missing_renderer()
    files = [frame.filename for frame in _frames(error, installed=True)]
    if obstacle is None or not any(name in file for file in files for name in _RENDERERS):
        return None
    return f"{obstacle.problem}: {obstacle.command}, or unset MUJOCO_GL"


def _is_calls_own(error: BaseException) -> bool:
    """Whether a call was refused, or what it returned, and nothing in it raised."""
    frames = _frames(error, installed=True)
    return isinstance(error, (TypeError, ValueError)) and (
        not frames or any(part in frames[-1].filename for part in _WRAPPERS)
    )


def _frames(error: BaseException, *, installed: bool = False) -> list[traceback.FrameSummary]:
    """The frames outside of Python and worldflux, and outside of packages unless asked for."""
    found = []
    for frame in traceback.extract_tb(error.__traceback__):
        in_package = any(folder in frame.filename for folder in _PACKAGES)
        in_python = frame.filename.startswith((_PYTHON, "<")) and not in_package
        if not in_python and not frame.filename.startswith(_OURS) and in_package <= installed:
            found.append(frame)
    return found
