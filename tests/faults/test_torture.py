"""The short form of `make torture`: every section once, in one process that forks its trainers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torture import SECTIONS


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("torture") / "rows.jsonl"
    script = Path(__file__).parent / "torture.py"
    done = subprocess.run(
        [sys.executable, str(script), "--short", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert out.is_file(), done.stderr
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_row_of_the_section_held(rows: list[dict[str, Any]], section: str) -> None:
    own = [row for row in rows if row["section"] == section]
    assert own
    assert [row for row in own if not row["passed"]] == []
