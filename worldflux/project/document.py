"""The text of a project file, parsed, with the place of every key at hand."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError

from .problems import Problem, ProjectFileError, excerpt
from .toml_positions import MAX_BYTES, KeyPath, LimitExceeded, Positions, Span, scan

FILE_NAME = "worldflux.toml"
_TOML_PLACE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")


@dataclass
class Document:
    """A parsed project file. `labels` names what overrode a key: a flag or a variable."""

    path: Path
    text: str
    positions: Positions
    data: dict[str, Any]
    labels: dict[KeyPath, str] = field(default_factory=dict)

    def where(self, path: KeyPath, *, value: bool = False) -> tuple[str, Span | None]:
        """The place of a key (or of its value): an override, `file:line:col` or the file."""
        for length in range(len(path), 0, -1):
            if label := self.labels.get(path[:length]):
                return label, None
        span = self.positions.values.get(path) if value else None
        span = span or self.positions.of(path)
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

    def _problem(self, where: str, span: Span | None, message: str, hint: str | None) -> Problem:
        lines = self.text.split("\n")
        line = None if span is None or span.line > len(lines) else lines[span.line - 1]
        drawn = None if line is None or span is None else excerpt(line, span)
        return Problem(where, message, drawn, hint)


def shown_path(path: Path) -> str:
    """The path as a user would type it: relative where it lies under the working folder."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_document(path: Path) -> Document:
    """Read and parse a project file.

    Args:
        path: the file, or the folder that holds worldflux.toml.

    Raises:
        ConfigurationError: when there is no such file or it cannot be read.
        ProjectFileError: when the text is too large, not UTF-8 or not TOML.
    """
    file = path / FILE_NAME if path.is_dir() else path
    text = _read_text(file)
    document = Document(file, text, Positions(), {})
    try:
        document.positions = scan(text)
        document.data = tomllib.loads(text)
    except LimitExceeded as error:
        raise _refusal(document, error.message, error.span) from None
    except (ValueError, RecursionError) as error:
        message, span = _toml_mistake(text, str(error))
        raise _refusal(document, f"not valid TOML: {message}", span) from None
    if not document.data:
        raise _refusal(document, "the file has no keys", None, "worldflux init writes a full one")
    return document


def _refusal(
    document: Document, message: str, span: Span | None, hint: str | None = None
) -> ProjectFileError:
    name = shown_path(document.path)
    where = name if span is None else f"{name}:{span.line}:{span.column}"
    return ProjectFileError([document._problem(where, span, message, hint)])


def _read_text(file: Path) -> str:
    name = shown_path(file)
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
        raise ProjectFileError([Problem(name, message)])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start]
        line = before.count(b"\n") + 1
        column = len(before) - (before.rfind(b"\n") + 1) + 1
        message = f"not UTF-8 text: byte 0x{raw[error.start]:02x}"
        hint = "save the file as UTF-8"
        raise ProjectFileError([Problem(f"{name}:{line}:{column}", message, None, hint)]) from None
    if text.startswith("\ufeff"):
        hint = 'save the file as UTF-8 without "BOM"'
        message = "the file starts with a byte-order mark, which TOML does not allow"
        raise ProjectFileError([Problem(f"{name}:1:1", message, None, hint)])
    return text.replace("\r\n", "\n")


def _toml_mistake(text: str, message: str) -> tuple[str, Span | None]:
    """tomllib's message without its place, and the place."""
    match = _TOML_PLACE.search(message)
    if match is None:
        return message, None
    if match[1]:
        span = Span(int(match[1]), int(match[2]))
    else:
        lines = text.rstrip("\n").split("\n")
        span = Span(len(lines), len(lines[-1]) + 1)
    return message[: match.start()], span


def unusable_values(data: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Values that TOML knows and no key takes: dates, infinities, integers beyond 64 bits."""
    if isinstance(data, dict):
        for key, item in data.items():
            yield from unusable_values(item, (*path, key))
    elif isinstance(data, list):
        for index, item in enumerate(data):
            yield from unusable_values(item, (*path, index))
    elif isinstance(data, float) and not math.isfinite(data):
        yield path, f"{_last(path)} = {data} is not a finite number"
    elif isinstance(data, int) and not -(2**63) <= data < 2**63:
        yield path, f"{_last(path)} does not fit 64 bits"
    elif not isinstance(data, (str, bool, int, float)):
        yield path, f"{_last(path)} = {data} is a date or time, which no key takes"


def _last(path: KeyPath) -> str:
    return str(next((part for part in reversed(path) if isinstance(part, str)), "value"))
