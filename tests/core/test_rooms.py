"""A room imports only rooms above it in this list, also inside functions, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import worldflux

PACKAGE = Path(worldflux.__file__).parent
ROOMS = (
    "__version__", "errors", "alpha", "lazy", "clock", "layout", "files", "optional",
    "run_log", "configuration_hash", "progress",
    "nn", "core", "models", "envs", "data", "evaluation",
    "backends", "factory", "training", "dashboard", "diagnosis", "project", "acting", "export",
    "verify", "runs", "cli", "__main__",
)  # fmt: skip
# What still climbs, each with its reason; docs/architecture.md, "Rooms", says the same.
EXCEPTIONS = {
    ("core", "models"): "`core.config` also shows the configurations of the families, lazily",
    ("backends", "training"): "a job is described by a TrainingConfig",
    ("factory", "training"): "opening a run folder finds its checkpoint",
}


def _modules() -> Iterator[tuple[str, bool, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        package = parts[-1] == "__init__"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        yield ".".join(parts[:-1] if package else parts), package, tree


def _imports(module: str, package: bool, tree: ast.AST) -> Iterator[str]:
    """Absolute names of what is imported from worldflux, `worldflux.room.module[.name]`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".") if package else module.split(".")[:-1]
            above = base[: len(base) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.startswith("worldflux."))


def test_rooms_import_only_rooms_above_them() -> None:
    climbing = {
        (module, name)
        for module, package, tree in _modules()
        if "." in module  # the package's own face names what it shows
        for name in _imports(module, package, tree)
        if ROOMS.index(name.split(".")[1]) > ROOMS.index(module.split(".")[1])
    }
    unknown = {pair for pair in climbing if (_room(pair[0]), _room(pair[1])) not in EXCEPTIONS}
    assert not unknown
    assert {(_room(a), _room(b)) for a, b in climbing} == set(EXCEPTIONS)  # none outlived itself


def _room(name: str) -> str:
    return name.split(".")[1]


def test_no_modules_import_one_another_in_a_circle() -> None:
    known = {module for module, _, _ in _modules()}
    graph: dict[str, set[str]] = {}
    for module, package, tree in _modules():
        top = ast.Module([node for node in tree.body if _runs_at_import(node)], [])
        found = {_module_of(name, known) for name in _imports(module, package, top)}
        graph[module] = found - {module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"circle: {' -> '.join(error.args[1])}")


def _runs_at_import(node: ast.stmt) -> bool:
    typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
    return not typing_only and not isinstance(node, ast.FunctionDef | ast.ClassDef)


def _module_of(name: str, known: set[str]) -> str:
    return name if name in known else name.rpartition(".")[0]
