"""Every table of the contract has a test here that works through it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from inventory import ROWS


def tables_of(document: str) -> set[str]:
    """The tables that the marks of a document's test module name."""
    source = Path(__file__).with_name(f"test_{document}.py").read_text(encoding="utf-8")
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.rows":
            name, *tables = (ast.literal_eval(argument) for argument in node.args)
            assert name == document
            found |= set(tables)
    return found


@pytest.mark.parametrize("document", ROWS)
def test_every_table_has_a_test(document: str) -> None:
    assert tables_of(document) == ROWS[document].keys()
