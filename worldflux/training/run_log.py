"""`metrics.jsonl` and `eval.jsonl`: one strict JSON object a line, appended by one writer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from worldflux.files import finite, write_text, written_or_told

METRICS = "metrics.jsonl"
EVALUATIONS = "eval.jsonl"
_EVALUATION = ("env_steps", "return_mean", "return_std")


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Append one row; non-finite numbers become null and are named under "non_finite".

    Raises:
        StorageError: when the disk does not take it; readers pass over the torn line.
    """
    broken = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    if broken:
        row = {**row, "non_finite": broken}
    line = json.dumps(finite(row), allow_nan=False) + "\n"
    with written_or_told(path, len(line)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a log; a torn last line is passed over, a missing file has none."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row


def read_evaluations(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of `eval.jsonl` that hold what an evaluation writes; others are passed over."""
    for row in read_rows(path):
        whole = all(_is_number(row.get(name)) for name in _EVALUATION) and _has_step(row)
        if whole and isinstance(row.get("returns"), list):
            yield row


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _has_step(row: dict[str, Any]) -> bool:
    return isinstance(row.get("step"), int)


def keep_until(path: Path, step: int) -> None:
    """Drop rows after update `step` or of none, and torn lines: a resumed run writes them anew."""
    if not path.is_file():
        return
    kept = [row for row in read_rows(path) if _has_step(row) and row["step"] <= step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
