"""Where a run comes from: the project's commit, its own environment's code."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worldflux.files import sha256_of

from .dataset_file import FILE
from .scaffold import SUFFIX, templates_root

OWN_ENVIRONMENT = f"{FILE}:make_env"
# dataset.py as earlier versions of `worldflux init` wrote it, by SHA-256.
_EARLIER_STOCK = {
    "ba08a1c0621c8ea4c7e19b35e5521214ffef7f6307adc570b77e543773b07da8",
    "36753a0a241e7ddab1083142026f47b5173c22ebfb9b9a0c80ef00aad61cf08e",
    "0b029fec93d80efa267b7700427fcb43696d99add8ab4c27b6f6ba7aebc771c3",
}
_GIT_TIMEOUT_S = 10


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of a folder, and whether tracked files differ from it; None without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def _git(folder: Path, *command: str) -> str | None:
    words = ["git", "--no-optional-locks", "-C", str(folder), *command]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=_GIT_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def environment_identity(root: Path, env_id: str) -> dict[str, Any]:
    """How a run records its environment, with the SHA-256 of the project's files that make it.

    The id of one that the project's own dataset.py makes is `dataset.py:make_env`, whatever
    worldflux.toml says, which `named` keeps.
    """
    name = environment_name(root, env_id)
    if name == OWN_ENVIRONMENT:
        code = _hashes(root, root / FILE)
        return {"id": name, "named": env_id, "code": code}
    module = env_id.partition(":")[0].replace(".", "/") if ":" in env_id else None
    own = [] if module is None else _module_files(root / module)
    return {"id": env_id, "code": _hashes(root, *own)}


def environment_name(root: Path, env_id: str) -> str:
    """What a run calls its environment, in its manifest and in messages."""
    return OWN_ENVIRONMENT if makes_its_own(root / FILE) else env_id


def makes_its_own(path: Path) -> bool:
    """Whether a dataset.py has a make_env other than the one that `worldflux init` writes."""
    if not path.is_file() or sha256_of(path) in _EARLIER_STOCK:
        return False
    stock = _parsed(templates_root() / (FILE + SUFFIX))
    return _without_docstrings(_parsed(path)) != _without_docstrings(stock)


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):  # importing it says so better
        return ast.Module(body=[], type_ignores=[])


def _without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)  # of a lambda it is no list
        first = body[0] if isinstance(body, list) and body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            node.body.remove(first)  # type: ignore[attr-defined]
    return ast.dump(tree)


def _hashes(root: Path, *files: Path) -> dict[str, str]:
    """SHA-256 of files and of the project's modules that they import, by path below `root`."""
    found: dict[Path, str] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        if path not in found:
            found[path] = sha256_of(path)
            waiting += _imported_files(path, root)
    return {path.relative_to(root).as_posix(): found[path] for path in sorted(found)}


def _imported_files(path: Path, root: Path) -> Iterator[Path]:
    for node in ast.walk(_parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _module_files(root / alias.name.replace(".", "/"))
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1] if node.level else root
            base = base / (node.module or "").replace(".", "/")
            for module in (base, *(base / alias.name for alias in node.names)):
                if module.is_relative_to(root):
                    yield from _module_files(module)


def _module_files(module: Path) -> list[Path]:
    candidates = (module.with_name(module.name + ".py"), module / "__init__.py")
    return [path for path in candidates if path.is_file()]
