"""The documented API says what it does, its shapes and its errors; every module has a header line.

Documented are the names that `make reference` lists and the mathematics of the families. Everything
else may leave to its name and types what these say.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from docstrings import Documented, public_definitions, undocumented_modules

import worldflux
import worldflux.core.config
import worldflux.training
from worldflux.training import callbacks

PACKAGE = Path(worldflux.__file__).parent
MATHEMATICS = ("nn.py", "models/*/maths.py", "models/*/losses.py", "models/*/rssm.py")


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
    paths = sorted(path for pattern in MATHEMATICS for path in PACKAGE.glob(pattern))
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
