"""The logs of a run: one strict JSON object per line, appended by one writer, read while they grow.

A reader may see half of the last line, and a crash may leave it so: what follows the last newline
of a growing file is not read yet. A line that is not a JSON object is skipped.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from worldflux.files import finite, write_text, written_or_told
from worldflux.layout import EVALUATIONS as EVALUATIONS
from worldflux.layout import METRICS as METRICS

Row = dict[str, Any]

_EVALUATION = ("env_steps", "return_mean", "return_std")
CHUNK_BYTES = 1 << 20
# A line longer than this is skipped.
_LONGEST_LINE_BYTES = 64 * CHUNK_BYTES


def append_row(path: Path, row: Row) -> None:
    """Append one row; non-finite numbers become null and are named under "non_finite".

    Raises:
        StorageError: when the disk does not take it; readers skip the torn line.
    """
    broken = [k for k, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    if broken:
        row = {**row, "non_finite": broken}
    line = json.dumps(finite(row), allow_nan=False) + "\n"
    with written_or_told(path, len(line)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)


def read_rows(path: Path) -> Iterator[Row]:
    """All rows of a log; a missing file has none."""
    if path.is_file():
        with path.open("rb") as file:
            yield from _rows(file)


def read_evaluations(path: Path) -> Iterator[Row]:
    """Rows of `eval.jsonl` that hold what an evaluation writes."""
    for row in read_rows(path):
        complete = all(is_number(row.get(name)) for name in _EVALUATION) and _has_step(row)
        if complete and isinstance(row.get("returns"), list):
            yield row


def keep_until(path: Path, step: int) -> None:
    """Drop torn lines and rows after update `step`: a resumed run writes these again."""
    if not path.is_file():
        return
    kept = [row for row in read_rows(path) if _has_step(row) and row["step"] <= step]
    write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a JSON value is a number, which true and false are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _has_step(row: Row) -> bool:
    return isinstance(row.get("step"), int)


@dataclass(frozen=True)
class Mark:
    """A place in one file: which file (inode), and how many bytes of it have been read."""

    inode: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Chunk:
    """Rows read at once, the place after them, and whether the file ends there for now."""

    rows: list[Row]
    mark: Mark
    at_end: bool
    replaced: bool = False


def read_chunk(fd: int, mark: Mark, limit_bytes: int = CHUNK_BYTES) -> Chunk:
    """The rows after `mark`, at most `limit_bytes` of them unless a line is longer.

    `replaced` says that the file was replaced or cut since `mark`; the rows are then those from
    its beginning.
    """
    status = os.fstat(fd)
    same_file = mark.inode == status.st_ino and mark.offset <= status.st_size
    at_line = mark.offset == 0 or os.pread(fd, 1, mark.offset - 1) == b"\n"
    continues = same_file and at_line
    lines, offset, at_end = whole_lines(fd, mark.offset if continues else 0, limit_bytes)
    # A file that was not read yet has the mark (0, 0): it is not a replaced one.
    replaced = mark.inode != 0 and not continues
    return Chunk(list(_rows(lines)), Mark(status.st_ino, offset), at_end, replaced)


def whole_lines(
    fd: int, offset: int, limit_bytes: int = CHUNK_BYTES
) -> tuple[list[bytes], int, bool]:
    """Finished lines from `offset` on, the offset after them, and whether the file ends there."""
    data = os.pread(fd, limit_bytes, offset)
    end = data.rfind(b"\n") + 1
    is_full = len(data) == limit_bytes
    if end == 0 and is_full:
        if limit_bytes < _LONGEST_LINE_BYTES:
            return whole_lines(fd, offset, 4 * limit_bytes)
        end = len(data)
    return data[:end].splitlines(), offset + end, not is_full


def sample_rows(fd: int, windows: int, window_bytes: int) -> tuple[list[Row], Mark]:
    """Rows from evenly spaced windows of a file too long to read, and its end.

    The last window ends at the last whole line, so that reading continues from there exactly. A
    window is long enough for a whole line, unless lines differ much.
    """
    status = os.fstat(fd)
    rows: list[Row] = []
    line_bytes = os.pread(fd, CHUNK_BYTES, 0).find(b"\n") + 1
    window_bytes = min(max(window_bytes, 5 * line_bytes // 2), status.st_size)
    stride = max(window_bytes, (status.st_size - window_bytes) // max(1, windows - 1))
    starts = list(range(0, status.st_size - window_bytes, stride))[: windows - 1]
    end = 0
    for start in [*starts, status.st_size - window_bytes]:
        found, end = _window(fd, start, window_bytes)
        rows += found
    return rows, Mark(status.st_ino, end)


def read_tail(fd: int, window_bytes: int) -> list[Row]:
    """The last rows of a file, in a window of `window_bytes`."""
    return _window(fd, max(0, os.fstat(fd).st_size - window_bytes), window_bytes)[0]


def _window(fd: int, start: int, count: int) -> tuple[list[Row], int]:
    """The rows of the whole lines within a window, and the offset after them."""
    data = os.pread(fd, count, start)
    begin = 0 if start == 0 else data.find(b"\n") + 1
    end = data.rfind(b"\n") + 1
    return list(_rows(data[begin:end].splitlines())), start + end


def parse_row(line: bytes) -> Row | None:
    """The JSON object in `line`, or None for anything else."""
    try:
        row = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _rows(lines: Iterable[bytes]) -> Iterator[Row]:
    return (row for line in lines if (row := parse_row(line)) is not None)
