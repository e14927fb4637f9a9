"""A few trials of `make torture`'s cheaper sections, in one process that forks its trainers.

Kills and signals of DreamerV3, ablations, races, memory and seeds cost minutes: `make torture`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SECTIONS = ("kill", "events", "flips", "disk", "nan", "hostile", "toml", "damaged")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("torture") / "rows.jsonl"
    script = Path(__file__).parents[1] / "torture" / "torture.py"
    chosen = [word for section in SECTIONS for word in ("--only", section)]
    done = subprocess.run(
        [sys.executable, str(script), "--short", "--family", "tdmpc2", "--out", str(out), *chosen],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert out.is_file(), done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    return [line for line in lines if "section" in line]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_row_of_the_section_held(rows: list[dict[str, Any]], section: str) -> None:
    own = [row for row in rows if row["section"] == section]
    assert own
    assert [row for row in own if not row["passed"]] == []
