"""A project's dataset.py: imported as Python would import it, its errors shown as the user's own.

It is the module `dataset`, with the project's folder on `sys.path`: it may import its neighbours,
and what it defines can be pickled and reaches processes that are spawned. It is imported once, and
again after it or a module of the project was edited.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from worldflux.errors import ConfigurationError, WorldFluxError, did_you_mean

from .document import shown_path
from .problems import excerpt
from .toml_positions import Span

FILE = "dataset.py"
_NAME = "dataset"
GIVEN = "worldflux.train: "  # begins the name of an environment that a script makes
# Instead of a dataset.py: what `worldflux.train` was given in this process, by the run's folder.
_given: dict[Path, Callable[..., Any]] = {}
# The project that this process has entered -> its imported files and when they were last changed.
_entered: dict[Path, dict[str, int]] = {}


def give_make_env(root: Path, make_env: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Have this function (None: no function any more) make the environments of the run in the
    folder `root`; returns the one that did."""
    before = _given.pop(root, None)
    if make_env is not None:
        _given[root] = make_env
    return before


def is_given(root: Path) -> bool:
    return root in _given


def own_make_env(root: Path) -> Callable[..., Any] | None:
    """`make_env` of the project's dataset.py; None where there is no such file."""
    if root in _given:
        return _given[root]
    path = root / FILE
    if not path.is_file():
        return None
    module = _imported(path)
    make_env = getattr(module, "make_env", None)
    if callable(make_env):
        return make_env
    near = None
    problem = f"make_env is not a function: it is a {type(make_env).__name__}"
    if make_env is None:
        problem = "dataset.py has no make_env, so it would not be used"
        near = did_you_mean("make_env", [name for name in vars(module) if not name.startswith("_")])
    raise ConfigurationError(
        problem,
        where=shown_path(path),
        hint=(f"{near} " if near else "")
        + "define make_env(render_mode=None), which returns an environment; "
        "without an environment of your own, delete dataset.py",
    )


def enter_project(root: Path) -> None:
    """Let modules of the project's folder be imported; those of another project are forgotten."""
    for other in [other for other in _entered if other != root]:
        _forget(other)
        del _entered[other]
        with contextlib.suppress(ValueError):
            sys.path.remove(str(other))
    _entered.setdefault(root, {})
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))


def _imported(path: Path) -> ModuleType:
    root = path.parent
    enter_project(root)
    if any(_changed_at(file) != time for file, time in _entered[root].items()):
        _forget(root)
    if str(path) in _entered[root]:
        return sys.modules[_NAME]
    importlib.invalidate_caches()
    spec = importlib.util.spec_from_file_location(_NAME, path)
    assert spec is not None
    assert spec.loader is not None
    before = set(sys.modules)
    module = sys.modules[_NAME] = importlib.util.module_from_spec(spec)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for answers
            spec.loader.exec_module(module)
    except BaseException as error:
        _remember(root, before)
        _forget(root)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _blamed(path, error) from error
    _remember(root, before)
    return module


def _remember(root: Path, before: set[str]) -> None:
    """Note the project's own modules among those imported since, dataset.py included."""
    for name in {*(set(sys.modules) - before), _NAME}:
        if (place := _place(sys.modules[name])) and _is_own(place, root):
            _entered[root][place] = _changed_at(place)


def _forget(root: Path) -> None:
    for name, module in list(sys.modules.items()):
        if _place(module) in _entered[root]:
            del sys.modules[name]
    _entered[root].clear()


def _place(module: ModuleType) -> str:
    """The file of a module, or the folder of a package without a file; "" for built-in ones."""
    return getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), "")


def _is_own(file: str, root: Path) -> bool:
    """Whether a file is the project's, and not a virtual environment's or Python's below it."""
    path = Path(file)
    installed = "site-packages" in path.parts or path.is_relative_to(Path(os.__file__).parent)
    package = path.is_relative_to(Path(__file__).parents[1])
    return path.is_relative_to(root) and not installed and not package


def _changed_at(file: str) -> int:
    path = Path(file)
    return path.stat().st_mtime_ns if path.is_file() else 0


def _blamed(path: Path, error: BaseException) -> WorldFluxError:
    """The error of dataset.py in our words, at the line of the project that it comes from."""
    root = path.parent
    lines = [
        f"{shown_path(Path(frame.filename))}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if _is_own(frame.filename, root)
    ]
    where = lines[-1] if lines else shown_path(path)
    if isinstance(error, WorldFluxError):
        error.where = error.where or where
        return error
    what = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SystemExit):
        what = f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    elif isinstance(error, SyntaxError) and _is_own(error.filename or "", root):
        span = Span(error.lineno or 1, max(1, error.offset or 1))
        where = f"{shown_path(Path(error.filename or ''))}:{span.line}:{span.column}"
        what += f"\n{excerpt(error.text, span)}" if error.text else ""
    message = f"dataset.py cannot be imported: {what}"
    return ConfigurationError(message, where=where, hint=_hint(root, error))


def _hint(root: Path, error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        name = error.name.partition(".")[0]
        if name == "worldflux":
            return "it was written for another version: worldflux init --force writes a new one"
        return f"put {name}.py next to dataset.py, or: pip install {name}"
    missing = getattr(error, "filename", None)
    if isinstance(error, FileNotFoundError) and missing and (root / missing).exists():
        return f"open it from any folder with Path(__file__).parent / {missing!r}"
    return None
