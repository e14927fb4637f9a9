"""Where keys and values are in a TOML text, and the limits it must keep before it is parsed.

The standard parser gives no positions and has no limits: one dotted key of 40 KB takes it 22 s, and
20,000 nested arrays end in a RecursionError. The scanner reads headers and the keys below them; a
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

_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\\n])*"|'[^'\n]*'""")
_KEY = re.compile(rf"(?:{_PART.pattern})(?:[ \t]*\.[ \t]*(?:{_PART.pattern}))*")
_HEADER = re.compile(r"\[\[?[ \t]*")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_LAYOUT = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_LONG_STRING = r'"""(?:\\[\s\S]|[^\\])*?"{3,5}|"""[\s\S]*|' r"'''[\s\S]*?'{3,5}|'''[\s\S]*"
_TOKEN = re.compile(rf"{_LONG_STRING}|(?P<key>{_KEY.pattern})|#[^\n]*|[ \t\r]+|[\s\S]")


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

    def of(self, path: KeyPath) -> Span | None:
        """The span of a key, or of the nearest key around it."""
        spans = (self.keys.get(path[:length]) for length in range(len(path), 0, -1))
        return next((span for span in spans if span is not None), None)


def scan(text: str) -> Positions:
    """The position of every header, and of every key below it with its value.

    Raises:
        LimitExceeded: for a text beyond the limits; never for a mistake of grammar.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > MAX_LINE_CHARS:
            message = (
                f"line {number} has {len(line)} characters; at most {MAX_LINE_CHARS} are allowed"
            )
            raise LimitExceeded(message, Span(number, MAX_LINE_CHARS + 1))
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.positions = Positions()
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def run(self) -> Positions:
        table: KeyPath = ()
        at = self._blank(0)
        while at < len(self.text):
            if header := _HEADER.match(self.text, at):
                table = self._key(header.end(), ())[0] or table
            else:
                path, at = self._key(at, table)
                if path and (equals := _EQUALS.match(self.text, at)):
                    at = self._value(path, equals.end())
            at = self._blank(self._line_end(at))
        return self.positions

    def _blank(self, at: int) -> int:
        match = _LAYOUT.match(self.text, at)
        return match.end() if match else at

    def _line_end(self, at: int) -> int:
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end

    def _span(self, start: int, end: int) -> Span:
        line = bisect(self.line_starts, start)
        return Span(line, start - self.line_starts[line - 1] + 1, max(1, end - start))

    def _key(self, at: int, table: KeyPath) -> tuple[KeyPath, int]:
        """Record a key or header; returns its path, empty where there is none, and its end."""
        match = _KEY.match(self.text, at)
        if match is None:
            return (), at
        span = self._span(at, match.end())
        path = (*table, *map(_unquoted, self._parts(match[0], at)))
        if len(path) > MAX_DEPTH:
            raise LimitExceeded(f"keys are nested deeper than {MAX_DEPTH} levels", span)
        for length in range(1, len(path) + 1):
            self.positions.keys.setdefault(path[:length], span)
        return path, match.end()

    def _parts(self, key: str, at: int) -> list[str]:
        parts: list[str] = _PART.findall(key)
        if len(parts) > MAX_KEY_PARTS:
            message = f"a dotted key has more than {MAX_KEY_PARTS} parts"
            raise LimitExceeded(message, self._span(at, at + len(key)))
        return parts

    def _value(self, path: KeyPath, start: int) -> int:
        """Record a value; returns its end: that of its brackets, or of its line."""
        at = end = start
        levels, parts = [len(path)], 1
        while at < len(self.text):
            token = _TOKEN.match(self.text, at)
            assert token is not None
            mark = token[0]
            if mark in ("[", "{"):
                levels.append(levels[-1] + parts)
            elif mark in ("]", "}") and len(levels) > 1:
                levels.pop()
            elif mark[0] in "\n#" and len(levels) == 1:
                break
            if levels[-1] > MAX_DEPTH:
                message = f"values are nested deeper than {MAX_DEPTH} levels"
                raise LimitExceeded(message, self._span(at, token.end()))
            if not mark.isspace() and mark != "=":
                parts = len(self._parts(token["key"], at)) if token["key"] else 1
            at = token.end()
            end = end if mark.isspace() else at
        self.positions.values.setdefault(path, self._span(start, end))
        return end


def _unquoted(part: str) -> str:
    if part[0] not in "\"'":
        return part
    try:
        return str(tomllib.loads(f"key = {part}")["key"])
    except ValueError:
        return part
