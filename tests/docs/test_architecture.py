"""The table of docs/architecture.md that says where to look names files that exist."""

from __future__ import annotations

import re
from pathlib import Path

import worldflux

PACKAGE = Path(worldflux.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"


def rows() -> list[tuple[str, str, str]]:
    section = PAGE.read_text(encoding="utf-8").split("## Where to look")[1].split("\n## ")[0]
    return re.findall(r"^\| (?!idea)([^|]+) \| (`.+) \| `([\w.]+)` \|$", section, re.M)


def test_every_idea_begins_with_a_name_in_a_file_that_exists() -> None:
    assert len(rows()) >= 50
    for idea, where, name in rows():
        texts = [(PACKAGE / path).read_text() for path in re.findall(r"`([\w/.]+)`", where)]
        for part in name.split("."):
            definition = re.compile(rf"^ *(?:def|class) {part}\b|^{part}\b.* = ", re.M)
            assert any(definition.search(text) for text in texts), (idea, part)


def test_at_most_three_of_the_first_thirty_are_not_where_one_looks_first() -> None:
    assert sum("(" in where for _, where, _ in rows()[:30]) <= 3
