"""Reading a growing JSON-lines file by byte offset.

The writer appends whole lines, but a reader may see half of the last one, and a crash may leave it
so: what follows the last newline is never consumed. A line that is not a JSON object is skipped.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

CHUNK_BYTES = 1 << 20
# A line longer than this is given up: nothing after it is read.
LONGEST_LINE_BYTES = 64 * CHUNK_BYTES


@dataclass(frozen=True)
class Mark:
    """A place in one file: which file (inode), and how many bytes of it have been consumed."""

    inode: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Chunk:
    """Rows read in one go, the place after them, and whether the file ends there for now."""

    rows: list[Row]
    mark: Mark
    at_end: bool
    replaced: bool = False


def read_chunk(fd: int, mark: Mark, limit_bytes: int = CHUNK_BYTES) -> Chunk:
    """The whole lines after `mark`, at most `limit_bytes` of them.

    `replaced` says that `mark` does not lie on a line start of this file, because the file was
    replaced or cut; the rows are then those from its beginning.
    """
    status = os.fstat(fd)
    replaced = not _continues(fd, status, mark)
    offset = 0 if replaced else mark.offset
    data = os.pread(fd, limit_bytes, offset)
    end = data.rfind(b"\n") + 1
    if end == 0 and len(data) == limit_bytes < LONGEST_LINE_BYTES:
        return read_chunk(fd, mark, 4 * limit_bytes)
    rows = [row for line in data[:end].splitlines() if (row := parse_row(line)) is not None]
    at_end = len(data) < limit_bytes or end == 0
    # A file not read yet (mark 0, 0) is not a replaced one.
    known = mark.inode != 0
    return Chunk(rows, Mark(status.st_ino, offset + end), at_end, replaced and known)


def _continues(fd: int, status: os.stat_result, mark: Mark) -> bool:
    if mark.inode != status.st_ino or mark.offset > status.st_size:
        return False
    return mark.offset == 0 or os.pread(fd, 1, mark.offset - 1) == b"\n"


def sample_rows(fd: int, windows: int, window_bytes: int) -> tuple[list[Row], Mark]:
    """Whole lines from evenly spaced windows of a file too long to read, and its end.

    The last window ends at the last whole line, so that reading goes on from there exactly. A
    window is long enough for a whole line, unless lines differ much.
    """
    status = os.fstat(fd)
    rows: list[Row] = []
    line_bytes = os.pread(fd, CHUNK_BYTES, 0).find(b"\n") + 1
    window_bytes = min(max(window_bytes, 5 * line_bytes // 2), status.st_size)
    stride = max(window_bytes, (status.st_size - window_bytes) // max(1, windows - 1))
    starts = list(range(0, status.st_size - window_bytes, stride))[: windows - 1]
    for start in [*starts, status.st_size - window_bytes]:
        data = os.pread(fd, window_bytes, start)
        begin = 0 if start == 0 else data.find(b"\n") + 1
        end = data.rfind(b"\n") + 1
        rows += [r for line in data[begin:end].splitlines() if (r := parse_row(line)) is not None]
        last = start + end
    return rows, Mark(status.st_ino, last)


def read_tail(fd: int, window_bytes: int) -> list[Row]:
    """The last whole lines of a file, in a window of `window_bytes`."""
    size = os.fstat(fd).st_size
    data = os.pread(fd, window_bytes, max(0, size - window_bytes))
    begin = 0 if size <= window_bytes else data.find(b"\n") + 1
    lines = data[begin : data.rfind(b"\n") + 1].splitlines()
    return [row for line in lines if (row := parse_row(line)) is not None]


def parse_row(line: bytes) -> Row | None:
    """The JSON object in `line`, or None for anything else."""
    try:
        row = json.loads(line.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def to_strict_json(value: Any) -> bytes:
    """`value` as strict JSON (no NaN, no infinity), in ASCII so that lone surrogates pass too."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
