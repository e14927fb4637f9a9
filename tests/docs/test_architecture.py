"""The table of docs/architecture.md that says where to look names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import worldflux

PACKAGE = Path(worldflux.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"


def rows() -> list[tuple[str, str]]:
    section = PAGE.read_text(encoding="utf-8").split("## Where to look")[1].split("\n## ")[0]
    return re.findall(r"^\| (?!idea)([^|]+) \| (`.+) \|$", section, re.M)


def test_every_idea_is_in_a_file_that_exists() -> None:
    named = {idea: re.findall(r"`([\w/.]+)`", where) for idea, where in rows()}
    assert len(named) >= 50
    paths = {path for found in named.values() for path in found}
    assert {path for path in paths if not (PACKAGE / path).is_file()} == set()


def test_at_most_three_of_the_first_thirty_are_not_where_one_looks_first() -> None:
    assert sum("(" in where for _, where in rows()[:30]) <= 3
