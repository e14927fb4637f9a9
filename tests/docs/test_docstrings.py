"""The documented API says what it does, its shapes and its errors; every module has a header line.

Documented are the names that docs/reference lists and the mathematics of the families. Everything
else may leave to its name and types what these say.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import worldflux
import worldflux.core.config
import worldflux.training
from worldflux.training import callbacks

PACKAGE = Path(worldflux.__file__).parent
MATHEMATICS = ("layers", "losses", "maths", "planner", "rssm")
SHAPE = re.compile(r"\[[^\]\n]*\]|\([A-Z0-9]+,[^)\n]*\)|scalar|any shape")
ARRAYS = re.compile(r"\b(Tensor|NDArray|ndarray)\b")
Definition = ast.ClassDef | ast.FunctionDef


@dataclass(frozen=True)
class Documented:
    """A public class, function or method, with everything that is said around it."""

    where: str
    node: Definition
    doc: str | None
    around: str

    def faults(self) -> list[str]:
        """What the docstring leaves out, in words."""
        if not self.doc:
            return ["has no docstring"]
        said = f"{self.doc}\n{self.around}"
        faults = []
        if isinstance(self.node, ast.FunctionDef):
            if ARRAYS.search(_annotations(self.node)) and not SHAPE.search(said):
                faults.append("takes or gives tensors and names no shape")
            missing = [name for name in _raised(self.node) if name not in said]
            faults += [f"raises {name} and does not say so" for name in missing]
        else:
            init = _constructor(self.node)
            missing = [name for name in _raised(init) if name not in said] if init else []
            faults += [f"its constructor raises {name} and the class does not say so"
                       for name in missing]  # fmt: skip
        return faults


def undocumented_modules(package: Path) -> list[str]:
    """Modules with code and without a header line."""
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in package.rglob("*.py")}
    return sorted(
        path.relative_to(package.parent).as_posix()
        for path, module in modules.items()
        if module.body and not ast.get_docstring(module)
    )


def public_definitions(path: Path, names: Container[str] | None = None) -> Iterator[Documented]:
    """A module's public classes, functions and methods; with `names` only those of these names."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    header = ast.get_docstring(module) or ""
    for node in module.body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef)) or _is_overload(node):
            continue
        if node.name.startswith("_") or (names is not None and node.name not in names):
            continue
        doc = ast.get_docstring(node)
        where = f"{path}::{node.name}"
        yield Documented(where, node, doc, header)
        if isinstance(node, ast.ClassDef):
            yield from _methods(node, where, f"{doc or ''}\n{header}")


def _methods(owner: ast.ClassDef, where: str, around: str) -> Iterator[Documented]:
    # A method that a base class of ours declares may leave its docstring to it.
    inherits = bool(owner.bases)
    for node in owner.body:
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        if _is_overload(node):
            continue
        doc = ast.get_docstring(node)
        if doc is None and (inherits or _fills_a_slot(owner)):
            continue
        yield Documented(f"{where}.{node.name}", node, doc, around)


def _is_overload(node: Definition) -> bool:
    return any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)


def _fills_a_slot(owner: ast.ClassDef) -> bool:
    """Whether the class says which component slot it fills; the protocol documents the method."""
    return "Slot `" in (ast.get_docstring(owner) or "")


def _annotations(node: ast.FunctionDef) -> str:
    arguments = [*node.args.args, *node.args.kwonlyargs, *node.args.posonlyargs]
    found = [ast.unparse(a.annotation) for a in arguments if a.annotation is not None]
    return " ".join([*found, ast.unparse(node.returns) if node.returns else ""])


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    names = ("__init__", "__post_init__")
    return next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name in names), None)


def _raised(node: ast.FunctionDef) -> list[str]:
    """Names of the errors that the body raises itself, and that no `try` around them catches."""
    names: set[str] = set()
    pending: list[ast.AST] = list(node.body)
    while pending:
        child = pending.pop()
        if isinstance(child, ast.Try) and child.handlers:
            pending += [*child.handlers, *child.orelse, *child.finalbody]
            continue
        if isinstance(child, (ast.FunctionDef, ast.Lambda)):
            continue  # raised where that is called
        if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
            names.add(ast.unparse(child.exc.func).rpartition(".")[2])
        pending += ast.iter_child_nodes(child)
    kept = {name for name in names if name[:1].isupper() and name.endswith(("Error", "Fault"))}
    return sorted(kept - {"AssertionError", "AttributeError"})


def test_every_documented_docstring_says_shapes_and_errors(
    request: pytest.FixtureRequest,
) -> None:
    found = _exported() + _mathematics()
    faults = {entry.where: entry.faults() for entry in found}
    wrong = {where: missing for where, missing in faults.items() if missing}
    count = ("public docstrings", "package", len(found) - len(wrong), len(found))
    request.node.user_properties.append(("counted", count))
    assert wrong == {}


def test_every_module_has_a_header_line() -> None:
    assert undocumented_modules(PACKAGE) == []


def _exported() -> list[Documented]:
    """The names that the reference lists, and the classes of ours that they inherit from."""
    packages = (worldflux, worldflux.core.config, worldflux.training)
    values = [getattr(package, name) for package in packages for name in package.__all__]
    values += [value for name, value in vars(callbacks).items() if name.endswith("Callback")]
    names: dict[Path, set[str]] = {}
    for value in values:
        for part in inspect.getmro(value) if inspect.isclass(value) else [value]:
            if getattr(part, "__module__", "").partition(".")[0] == "worldflux":
                names.setdefault(Path(inspect.getfile(part)), set()).add(part.__name__)
    return [entry for path in names for entry in public_definitions(path, names[path])]


def _mathematics() -> list[Documented]:
    paths = [PACKAGE / "nn.py"]
    paths += sorted(path for name in MATHEMATICS for path in PACKAGE.glob(f"models/*/{name}.py"))
    return [entry for path in paths for entry in public_definitions(path)]


@pytest.mark.parametrize(
    ("source", "faults"),
    [
        ("def f(x: int) -> int:\n    return x", ["has no docstring"]),
        (
            'def f(x: Tensor) -> Tensor:\n    """Twice x."""\n    return 2 * x',
            ["takes or gives tensors and names no shape"],
        ),
        ('def f(x: Tensor) -> Tensor:\n    """Twice x `[B]`."""\n    return 2 * x', []),
        (
            'def f() -> None:\n    """Fail."""\n    raise StateError("no")',
            ["raises StateError and does not say so"],
        ),
        ('def f() -> None:\n    """Raises StateError."""\n    raise StateError("no")', []),
        (
            'class C:\n    """A thing."""\n\n    def __init__(self) -> None:\n'
            '        raise ConfigurationError("no")',
            ["its constructor raises ConfigurationError and the class does not say so"],
        ),
    ],
)
def test_the_check_itself(tmp_path: Path, source: str, faults: list[str]) -> None:
    module = tmp_path / "module.py"
    module.write_text(source)
    (entry,) = public_definitions(module)
    assert entry.faults() == faults
