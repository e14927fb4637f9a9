"""The text of a project file with the place of every key, and what is set over it.

Precedence: command line > `WORLDFLUX_*` environment > worldflux.toml. A value of `--set` or of a
variable is read as TOML (`3`, `1e-3`, `true`, `"text"`, `[3, 64, 64]`); text that is not a TOML
value and does not begin like one is a string, so that `--set training.device=cpu` works. An empty
variable counts as not set.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError

from .problems import Problem, ProjectFileError, excerpt
from .toml_positions import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_KEY_PARTS,
    MAX_LINE_CHARS,
    KeyPath,
    LimitExceeded,
    Positions,
    Span,
    scan,
)

FILE_NAME = "worldflux.toml"
PREFIX = "WORLDFLUX_"
_TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass
class Document:
    """A parsed project file. `labels` names what overrode a key: a flag or a variable."""

    path: Path
    text: str = ""
    positions: Positions = field(default_factory=Positions)
    data: dict[str, Any] = field(default_factory=dict)
    labels: dict[KeyPath, str] = field(default_factory=dict)

    def afresh(self) -> Document:
        """The same file without what was set over it."""
        return Document(self.path, self.text, self.positions, tomllib.loads(self.text))

    def where(self, path: KeyPath, *, value: bool = False) -> tuple[str, Span | None]:
        """The place of a key (or of its value): an override, `file:line:col` or the file."""
        for length in range(len(path), 0, -1):
            if label := self.labels.get(path[:length]):
                return label, None
        span = (value and self.positions.values.get(path)) or self.positions.of(path)
        name = shown_path(self.path)
        if span is not None:
            return f"{name}:{span.line}:{span.column}", span
        made = (label for key, label in self.labels.items() if path and key[: len(path)] == path)
        return next(made, name), None  # a section that only an override made

    def problem(
        self, path: KeyPath, message: str, *, hint: str | None = None, value: bool = False
    ) -> Problem:
        """A problem at a key, or at its value."""
        where, span = self.where(path, value=value)
        return self._problem(where, span, message, hint)

    def refusal(self, message: str, span: Span | None, hint: str | None = None) -> ProjectFileError:
        """The error for a file that cannot be read further."""
        name = shown_path(self.path)
        where = name if span is None else f"{name}:{span.line}:{span.column}"
        return ProjectFileError([self._problem(where, span, message, hint)])

    def _problem(self, where: str, span: Span | None, message: str, hint: str | None) -> Problem:
        lines = self.text.split("\n") if self.text else []
        drawn = excerpt(lines[span.line - 1], span) if span and span.line <= len(lines) else None
        return Problem(where, message, drawn, hint)

    def set_variables(self, environ: Mapping[str, str], top_level: Sequence[str]) -> list[Problem]:
        """Set keys from `WORLDFLUX_SECTION__KEY` and `WORLDFLUX_MODEL`-like variables."""
        problems: list[Problem] = []
        for name in sorted(name for name in environ if name.startswith(PREFIX) and environ[name]):
            path = tuple(name.removeprefix(PREFIX).lower().split("__", 1))
            if len(path) > 1 or path[0] in top_level:  # WORLDFLUX_DEBUG and the like set no key
                problems += self._set(path, environ[name], name)
        return problems

    def set_assignments(self, assignments: Sequence[str]) -> list[Problem]:
        """Set keys from `section.key=value` texts; later ones win."""
        problems: list[Problem] = []
        for text in assignments:
            label = override_label(text)
            name, equals, raw = text.partition("=")
            path = tuple(part.strip() for part in name.split("."))
            if equals and all(path) and len(path) <= MAX_KEY_PARTS:
                problems += self._set(path, raw, label)
            else:
                hint = "write --set section.key=value, such as --set training.device=cpu"
                problems.append(Problem(label, "not a section.key=value assignment", hint=hint))
        return problems

    def _set(self, path: tuple[str, ...], raw: str, label: str) -> Iterator[Problem]:
        table = self.data
        for depth, part in enumerate(path[:-1], start=1):
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                yield Problem(label, f"{'.'.join(path[:depth])!r} is not a section")
                return
        try:
            table[path[-1]] = parsed_value(raw)
        except ValueError as error:
            yield Problem(label, str(error))
        else:
            self.labels[path] = label


def override_label(text: str) -> str:
    """What messages call a `section.key=value` text."""
    return f"--set {text if len(text) <= 80 else text[:77] + '...'}"


def parsed_value(raw: str) -> Any:
    """One TOML value, or the text itself where it does not look like one.

    Raises:
        ValueError: it begins like a value and is none, or it is too long.
    """
    text = raw.strip()
    if len(text) > MAX_LINE_CHARS - 10 or any(char in text for char in "\n\r\0"):
        raise ValueError(f"a value is one line of at most {MAX_LINE_CHARS - 10} characters")
    line = f"value = {text}\n"
    try:
        scan(line)
        return tomllib.loads(line)["value"]
    except LimitExceeded:
        raise
    except (ValueError, RecursionError):
        if not text or text[0] in "\"'[{":
            raise ValueError(f"{text!r} is not a TOML value") from None
        return text


def shown_path(path: Path) -> str:
    """The path as a user would type it: relative where it lies under the working folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_document(path: Path) -> Document:
    """Read and parse a project file, or the worldflux.toml of a folder."""
    file = path / FILE_NAME if path.is_dir() else path
    return parsed(file, _read_text(file))


def parsed(file: Path, text: str) -> Document:
    """The text of a project file, parsed.

    Args:
        file: where the text is, or would be, for messages.
    """
    document = Document(file, text.replace("\r\n", "\n"))
    try:
        document.positions = scan(document.text)
        document.data = tomllib.loads(document.text)
    except LimitExceeded as error:
        raise document.refusal(error.message, error.span) from None
    except (ValueError, RecursionError) as error:
        message, span = _toml_mistake(document.text, str(error))
        raise document.refusal(f"not valid TOML: {message}", span) from None
    if not document.data:
        hint = "worldflux init writes a full one"
        raise document.refusal("the file has no keys", None, hint)
    return document


def has_crlf(text: str) -> bool:
    """Whether every line of a text ends as on Windows."""
    return text.count("\r\n") == text.count("\n") > 0


def _read_text(file: Path) -> str:
    document, name = Document(file), shown_path(file)
    if not file.exists():
        hint = "run worldflux init to create a project, or name its folder"
        raise ConfigurationError("there is no project file here", where=name, hint=hint)
    if not file.is_file():
        raise ConfigurationError("not a regular file", where=name)
    try:
        with open(file, "rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
            size = os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=name) from None
    if len(raw) > MAX_BYTES:
        message = f"the file has {size:,} bytes; at most {MAX_BYTES:,} are allowed"
        raise document.refusal(message, None)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        span = Span(before.count(b"\n") + 1, len(before) - before.rfind(b"\n"))
        message = f"not UTF-8 text: byte 0x{raw[error.start]:02x}"
        raise document.refusal(message, span, "save the file as UTF-8") from None
    if text.startswith("\ufeff"):
        message = "the file starts with a byte-order mark, which TOML does not allow"
        raise document.refusal(message, Span(1, 1), 'save the file as UTF-8 without "BOM"')
    return text


def _toml_mistake(text: str, message: str) -> tuple[str, Span | None]:
    """tomllib's message without its place, and the place."""
    match = _TOML_PLACE.search(message)
    if match is None:
        return message, None
    lines = text.rstrip("\n").split("\n")
    span = Span(int(match[1]), int(match[2])) if match[1] else Span(len(lines), len(lines[-1]) + 1)
    return message[: match.start()], span


def unusable_values(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Values that TOML knows and no key takes: dates, infinities, large integers, deep tables."""
    if isinstance(data, (dict, list)) and len(path) <= MAX_DEPTH:
        for key, item in data.items() if isinstance(data, dict) else enumerate(data):
            yield from unusable_values(item, (*path, key))
        return
    name = next((part for part in reversed(path) if isinstance(part, str)), "value")
    if isinstance(data, (dict, list)):
        data.clear()  # so that nothing that follows has to recurse as deep
        yield path[:1], f"{path[0]} is nested deeper than {MAX_DEPTH} levels"
    elif isinstance(data, float) and not math.isfinite(data):
        yield path, f"{name} = {data} is not a finite number"
    elif isinstance(data, int) and not -(2**63) <= data < 2**63:
        yield path, f"{name} does not fit 64 bits"
    elif not isinstance(data, (str, bool, int, float)):
        kind = "date or time" if isinstance(data, date | time) else type(data).__name__
        yield path, f"{name} = {data} is a {kind}, which no key takes"
