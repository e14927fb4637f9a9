"""Where each key of a TOML text stands, and the limits a text must keep before it is parsed.

The standard parser gives values without positions and has no limits of its own: 40 KB of one
dotted key cost it 22 s, and 20,000 nested arrays end in a RecursionError. This scanner walks the
text once, records `line` and `column` of every key and value, and refuses what is too deep or too
long. It never judges grammar: on anything that it does not understand it goes on with the next
line, because `tomllib` reads the same text afterwards and tells the mistake.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_BYTES = 64 * 1024
MAX_LINE_CHARS = 2_000
MAX_DEPTH = 32
MAX_KEY_PARTS = 16

KeyPath = tuple[str | int, ...]

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_ESCAPES = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", '"': '"', "\\": "\\"}


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
    """Spans by key path, such as `("training", "device")`; array elements are counted from 0."""

    keys: dict[KeyPath, Span] = field(default_factory=dict)
    values: dict[KeyPath, Span] = field(default_factory=dict)

    def of(self, path: KeyPath) -> Span | None:
        """The span of a key, or of the nearest enclosing key that stands in the text."""
        for length in range(len(path), 0, -1):
            if (span := self.keys.get(path[:length])) is not None:
                return span
        return None


def check_limits(text: str) -> None:
    """Raise LimitExceeded for a line that is too long. The byte size is the reader's to check."""
    for number, line in enumerate(text.split("\n"), start=1):
        if len(line) > MAX_LINE_CHARS:
            raise LimitExceeded(
                f"line {number} has {len(line)} characters; at most {MAX_LINE_CHARS} are allowed",
                Span(number, MAX_LINE_CHARS + 1),
            )


def scan(text: str) -> Positions:
    """The position of every key and value. Raises LimitExceeded; never a grammar error."""
    check_limits(text)
    return _Scanner(text).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.positions = Positions()
        self.line_starts = [0]
        for index, char in enumerate(text):
            if char == "\n":
                self.line_starts.append(index + 1)
        self.line_index = 0
        self.table_counts: dict[KeyPath, int] = {}

    # -- the text under the cursor

    def peek(self, width: int = 1) -> str:
        return self.text[self.at : self.at + width]

    def span(self, start: int) -> Span:
        """The span from `start` to the cursor; positions are asked for in rising order mostly."""
        low, high = 0, len(self.line_starts) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.line_starts[middle] <= start:
                low = middle
            else:
                high = middle - 1
        return Span(low + 1, start - self.line_starts[low] + 1, max(1, self.at - start))

    def skip_blank(self) -> None:
        while self.peek() in (" ", "\t"):
            self.at += 1

    def skip_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end + 1

    def skip_layout(self) -> None:
        """Blanks, newlines and comments, as they may stand between the elements of an array."""
        while self.at < len(self.text):
            if self.peek() == "#":
                self.skip_line()
            elif self.peek() in (" ", "\t", "\n", "\r"):
                self.at += 1
            else:
                return

    # -- statements

    def run(self) -> Positions:
        table: KeyPath = ()
        while self.at < len(self.text):
            self.skip_layout()
            if self.at >= len(self.text):
                break
            if self.peek() == "[":
                table = self.header(table)
            elif not self.pair(table):
                self.skip_line()
        return self.positions

    def header(self, table: KeyPath) -> KeyPath:
        """`[a.b]` or `[[a.b]]`; returns the path that following pairs belong to."""
        many = self.peek(2) == "[["
        self.at += 2 if many else 1
        self.skip_blank()
        start = self.at
        parts = self.key()
        if not parts:
            self.skip_line()
            return table
        path = self.absolute(parts)
        if many:
            count = self.table_counts.get(path, -1) + 1
            self.table_counts[path] = count
            self.record_key(path, start)
            path = (*path, count)
        self.check_depth(path, start)
        self.record_key(path, start)
        self.skip_line()
        return path

    def absolute(self, parts: KeyPath) -> KeyPath:
        """The path of a header, where a table array's name stands for its newest element."""
        path: KeyPath = ()
        for position, part in enumerate(parts):
            path = (*path, part)
            if path in self.table_counts and position < len(parts) - 1:
                path = (*path, self.table_counts[path])
        return path

    def pair(self, table: KeyPath) -> bool:
        """`key = value`; False where the text is no pair."""
        start = self.at
        parts = self.key()
        if not parts:
            return False
        path = (*table, *parts)
        self.check_depth(path, start)
        self.record_key(path, start)
        self.skip_blank()
        if self.peek() != "=":
            return False
        self.at += 1
        self.skip_blank()
        self.value(path, depth=len(path))
        return True

    def record_key(self, path: KeyPath, start: int) -> None:
        span = self.span(start)
        for length in range(1, len(path) + 1):
            self.positions.keys.setdefault(path[:length], span)

    def check_depth(self, path: KeyPath, start: int) -> None:
        if len(path) > MAX_DEPTH:
            raise LimitExceeded(f"keys are nested deeper than {MAX_DEPTH} levels", self.span(start))

    # -- keys and values

    def key(self) -> KeyPath:
        """A bare, quoted or dotted key; the empty path where none stands."""
        start = self.at
        parts: list[str] = []
        while True:
            part = self.key_part()
            if part is None:
                return tuple(parts) if parts and self.peek() != "." else ()
            parts.append(part)
            if len(parts) > MAX_KEY_PARTS:
                raise LimitExceeded(
                    f"a dotted key has more than {MAX_KEY_PARTS} parts", self.span(start)
                )
            end = self.at
            self.skip_blank()
            if self.peek() != ".":
                self.at = end
                return tuple(parts)
            self.at += 1
            self.skip_blank()

    def key_part(self) -> str | None:
        if self.peek() in ('"', "'"):
            return self.string()
        start = self.at
        while self.peek() and self.peek() in _BARE:
            self.at += 1
        return self.text[start : self.at] or None

    def value(self, path: KeyPath, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise LimitExceeded(
                f"values are nested deeper than {MAX_DEPTH} levels", self.span(self.at)
            )
        start = self.at
        char = self.peek()
        if char in ('"', "'"):
            self.string()
        elif char == "[":
            self.array(path, depth)
        elif char == "{":
            self.inline_table(path, depth)
        else:
            while self.peek() and self.peek() not in ",]}#\n":
                self.at += 1
            while self.at > start and self.text[self.at - 1] in " \t\r":
                self.at -= 1
        self.positions.values.setdefault(path, self.span(start))

    def array(self, path: KeyPath, depth: int) -> None:
        self.at += 1
        index = 0
        while True:
            self.skip_layout()
            if not self.peek():
                return
            if self.peek() == "]":
                self.at += 1
                return
            before = self.at
            self.value((*path, index), depth + 1)
            index += 1
            self.skip_layout()
            if self.peek() == ",":
                self.at += 1
            elif self.at == before:
                return

    def inline_table(self, path: KeyPath, depth: int) -> None:
        self.at += 1
        while True:
            self.skip_layout()
            if not self.peek():
                return
            if self.peek() == "}":
                self.at += 1
                return
            start = self.at
            parts = self.key()
            if not parts:
                return
            inner = (*path, *parts)
            self.record_key(inner, start)
            self.skip_blank()
            if self.peek() != "=":
                return
            self.at += 1
            self.skip_blank()
            self.value(inner, depth + len(parts))
            self.skip_layout()
            if self.peek() == ",":
                self.at += 1

    def string(self) -> str:
        """The content of a string of any of the four kinds; stops at a line end where unclosed."""
        quote = self.peek()
        if self.peek(3) == quote * 3:
            return self.long_string(quote)
        self.at += 1
        out: list[str] = []
        while (char := self.peek()) and char not in (quote, "\n"):
            self.at += 1
            if char == "\\" and quote == '"':
                char = self.escape()
            out.append(char)
        if self.peek() == quote:
            self.at += 1
        return "".join(out)

    def escape(self) -> str:
        code = self.peek()
        self.at += 1
        width = {"u": 4, "U": 8}.get(code)
        if width is None:
            return _ESCAPES.get(code, code)
        digits = self.peek(width)
        try:
            decoded = chr(int(digits, 16))
        except (ValueError, OverflowError):
            return digits
        self.at += width
        return decoded

    def long_string(self, quote: str) -> str:
        start = self.at + 3
        self.at = start
        while self.at < len(self.text):
            if self.peek() == "\\" and quote == '"':
                self.at += 2
            elif self.peek(3) == quote * 3:
                while self.peek(4) == quote * 4:  # up to two quotes may end the content
                    self.at += 1
                content = self.text[start : self.at]
                self.at += 3
                return content
            else:
                self.at += 1
        return self.text[start:]
