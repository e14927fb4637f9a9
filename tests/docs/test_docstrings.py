"""Every public class, function and method says what it does, its shapes and its errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from docstrings import public_definitions

import worldflux

PACKAGE = Path(worldflux.__file__).parent


def test_every_public_docstring_says_shapes_and_errors(request: pytest.FixtureRequest) -> None:
    found = list(public_definitions(PACKAGE))
    faults = {entry.where: entry.faults() for entry in found}
    wrong = {where: told for where, told in faults.items() if told}
    count = ("public docstrings", "package", len(found) - len(wrong), len(found))
    request.node.user_properties.append(("counted", count))
    assert wrong == {}


@pytest.mark.parametrize(
    ("source", "told"),
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
def test_the_check_itself(tmp_path: Path, source: str, told: list[str]) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "module.py").write_text(source)
    (entry,) = public_definitions(package)
    assert entry.faults() == told
