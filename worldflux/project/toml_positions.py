"""Where keys and values are in a TOML text, and the limits it must keep before it is parsed.

The standard parser gives no positions and has no limits: one dotted key of 40 KB takes it 22 s, and
20,000 nested arrays end in a RecursionError. The scan finds headers and the keys below them; a
place inside an array or inline table is that of its key. It never judges grammar: `tomllib` reads
the same text afterwards and reports the mistake.
"""

from __future__ import annotations

import re
import tomllib
from bisect import bisect
from dataclasses import dataclass, field

MAX_BYTES = 64 * 1024
MAX_LINE_CHARS = 2_000
MAX_DEPTH = 32
MAX_KEY_PARTS = 16

KeyPath = tuple[str | int, ...]

_STRING = r"""(?:"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
_PART = re.compile(rf"[A-Za-z0-9_-]+|{_STRING}")
_KEY = r"""(?!\"{3}|'{3})""" + rf"(?:{_PART.pattern})(?:[ \t]*\.[ \t]*(?:{_PART.pattern}))*"
_SCALAR = re.compile(rf"{_STRING}|[^\s,#\[\]{{}}]+")
_LONG_STRING = r'"""(?:\\[\s\S]|[^\\])*?(?:"{3,5}|\Z)|' + r"'''[\s\S]*?(?:'{3,5}|\Z)"
_HEADER = r"^[ \t]*(?P<header>\[\[?)[ \t]*"
_MARK = re.compile(
    rf"{_LONG_STRING}|#[^\n]*|(?:{_HEADER}|(?P<line>^[ \t]*))?(?P<key>{_KEY})"
    r"(?P<equals>[ \t]*=[ \t]*)?|(?P<bracket>[\[\]{}])",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Span:
    """A place in the text: line and column count from 1, `width` is in characters."""

    line: int
    column: int
    width: int = 1


class LimitExceeded(ValueError):
    """The text is larger, longer or deeper than a project file can need."""

    def __init__(self, message: str, span: Span | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.span = span


@dataclass
class Positions:
    """Spans of headers, keys and values by key path, such as `("training", "device")`."""

    keys: dict[KeyPath, Span] = field(default_factory=dict)
    values: dict[KeyPath, Span] = field(default_factory=dict)
    headers: dict[KeyPath, Span] = field(default_factory=dict)  # of the keys, those of tables

    def of(self, path: KeyPath) -> Span | None:
        """The span of a key, or of the nearest key around it."""
        spans = (self.keys.get(path[:length]) for length in range(len(path), 0, -1))
        return next((span for span in spans if span is not None), None)


def scan(text: str) -> Positions:
    """The position of every header, and of every key below it with its value."""
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > MAX_LINE_CHARS:
            message = f"line {number} has {len(line)} characters"
            span = Span(number, MAX_LINE_CHARS + 1)
            raise LimitExceeded(f"{message}; at most {MAX_LINE_CHARS} are allowed", span)
    line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def span_of(start: int, end: int) -> Span:
        line = bisect(line_starts, start)
        return Span(line, start - line_starts[line - 1] + 1, max(1, end - start))

    positions = Positions()
    table: KeyPath = ()
    path: KeyPath = ()
    depth = 0
    counts: dict[KeyPath, int] = {}  # elements of each array of tables so far
    for mark in _MARK.finditer(text):
        span = span_of(*mark.span("key" if mark["key"] else 0))
        parts = _PART.findall(mark["key"] or "")
        if len(parts) > MAX_KEY_PARTS:
            message = f"a dotted key has more than {MAX_KEY_PARTS} parts"
            raise LimitExceeded(message, span)
        if depth == 0 and (mark["header"] or (mark["equals"] and mark["line"] is not None)):
            path = table + tuple(map(_unquoted, parts))
            if mark["header"]:
                path = _indexed(path[len(table) :], counts, mark["header"] == "[[")
            for length in range(1, len(path) + 1):
                positions.keys.setdefault(path[:length], span)
            if mark["header"]:
                positions.headers.setdefault(path, span)
                table, path = path, ()
            else:
                scalar = _SCALAR.match(text, mark.end())
                end = scalar.end() if scalar else mark.end()
                positions.values.setdefault(path, span_of(mark.end(), end))
        opened = mark["header"] or mark["bracket"] or ""
        depth = max(0, depth + sum(1 if char in "[{" else -1 for char in opened))
        if len(path) + depth > MAX_DEPTH:
            raise LimitExceeded(f"values are nested deeper than {MAX_DEPTH} levels", span)
    return positions


def _indexed(parts: KeyPath, counts: dict[KeyPath, int], begins: bool) -> KeyPath:
    """The path of a header, with the number of each array's newest element in it."""
    path: KeyPath = ()
    for number, part in enumerate(parts, start=1):
        path = (*path, part)
        if begins and number == len(parts):
            counts[path] = counts.get(path, 0) + 1
        if path in counts:
            path = (*path, counts[path] - 1)
    return path


def _unquoted(part: str) -> str:
    if part[0] not in "\"'":
        return part
    try:
        return str(tomllib.loads(f"key = {part}")["key"])
    except ValueError:
        return part
