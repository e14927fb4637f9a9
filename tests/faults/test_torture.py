"""A few trials of `make torture`'s cheaper sections, in one process that forks its trainers.

Kills and signals of DreamerV3, ablations, races, memory and seeds cost minutes: `make torture`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SECTIONS = ("kill", "events", "flips", "disk", "nan", "hostile", "toml", "damaged")


def test_every_row_of_every_section_held(tmp_path: Path) -> None:
    """One test: were it several, a second worker might take some and run the whole again."""
    out = tmp_path / "rows.jsonl"
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
    rows = [row for line in out.read_text().splitlines() if "section" in (row := json.loads(line))]
    assert {row["section"] for row in rows} == set(SECTIONS)
    assert [row for row in rows if not row["passed"]] == []
