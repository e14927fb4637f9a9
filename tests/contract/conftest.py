"""Which rows and examples of the contract the tests of this room cover.

A test says so by the tables that it works through: `@pytest.mark.rows("protocol", ...)`.
The count is printed at the end of a test run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from inventory import ROWS


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "rows(document, *tables): what a test covers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark in item.iter_markers("rows"):
            document, *tables = mark.args
            total = sum(map(len, ROWS[document].values()))
            for table in tables:
                found = (document, table, len(ROWS[document][table]), total)
                item.user_properties.append(("covered", found))
