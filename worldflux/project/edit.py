"""Set one key of a worldflux.toml in place: comments and formatting stay."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from worldflux.errors import ConfigurationError
from worldflux.files import write_text

from .document import Document, has_crlf, parsed, parsed_value, read_document
from .loader import load_project
from .scaffold import to_toml
from .toml_positions import MAX_KEY_PARTS, KeyPath, Span

_VALUE_END = re.compile(r"(?=[ \t]*(?:#[^\n]*)?(?:\n|\Z))")
_BARE = re.compile(r"[A-Za-z0-9_-]+")


def set_key(file: Path, key: str, raw: str) -> str:
    """Set a key in a worldflux.toml; returns its place.

    Args:
        key: `section.key`.
        raw: the value as TOML, or text that is taken as a string.

    Raises:
        ConfigurationError: the value or the key is not allowed; the file is untouched.
    """
    document = read_document(file)
    path = tuple(part.strip() for part in key.split("."))
    if not all(path) or len(path) > MAX_KEY_PARTS:
        hint = "write section.key, such as training.seed"
        raise ConfigurationError(f"{key!r} is not the name of a setting", hint=hint)
    try:
        value = parsed_value(raw)
    except ValueError as error:
        raise ConfigurationError(str(error), where=key) from None
    literal = raw.strip() if value != raw.strip() else to_toml(value)
    changed = with_value(document, path, literal)
    load_project(changed, environ={})
    crlf = has_crlf(document.path.read_bytes().decode())
    write_text(
        document.path.resolve(), changed.text.replace("\n", "\r\n") if crlf else changed.text
    )
    return changed.where(path, value=True)[0]


def with_value(document: Document, path: tuple[str, ...], literal: str) -> Document:
    """The document with a key set, in its place or below the last key of its section.

    Args:
        literal: the value as TOML writes it.

    Raises:
        ConfigurationError: the key is part of one value, such as an inline table.
    """
    text, values = document.text, document.positions.values
    for length in range(1, len(path)):
        if path[:length] in values:
            outer = ".".join(path[:length])
            raise ConfigurationError(
                f"{'.'.join(path)} is part of {outer}, which is written as one value",
                where=document.where(path[:length])[0],
                hint=f"worldflux config set {outer} VALUE, with the whole of it",
            )
    if path in values:
        start = _offset(text, values[path])
        return parsed(document.path, text[:start] + literal + text[_value_end(text, start) :])
    for length in range(len(path) - 1, -1, -1):
        if (at := _table_end(document, path, length)) is not None:
            line = f"\n{dotted(path[length:])} = {literal}"
            return parsed(document.path, text[:at] + line + text[at:])
    section = f"\n\n[{dotted(path[:1])}]\n{dotted(path[1:])} = {literal}\n"
    return parsed(document.path, text.rstrip("\n") + section)


def _table_end(document: Document, path: KeyPath, length: int) -> int | None:
    """Behind the last line of the table that the first parts of a key name; None without one.

    The top level counts where it has dotted keys of the same section.
    """
    text, headers = document.text, {(): Span(0, 1), **document.positions.headers}
    if path[:length] not in headers:
        return None
    line = headers[path[:length]].line
    next_line = min((s.line for s in headers.values() if s.line > line), default=1 << 30)
    values = document.positions.values.items()
    own = {key: span for key, span in values if line <= span.line < next_line}
    if not length and len(path) > 1 and not any(key[:1] == path[:1] for key in own):
        return None
    last = max(own.values(), key=lambda span: span.line, default=Span(line, 1))
    start = _offset(text, last)
    end = text.find("\n", _value_end(text, start) if own else start)
    return len(text) if end < 0 else end


def _offset(text: str, span: Span) -> int:
    lines = text.split("\n")[: span.line - 1]
    return sum(len(line) + 1 for line in lines) + span.column - 1


def _value_end(text: str, start: int) -> int:
    """Where the value that begins at `start` ends: before a comment or the end of a line."""
    for match in _VALUE_END.finditer(text, start + 1):
        try:
            tomllib.loads(f"value = {text[start : match.start()]}")
        except tomllib.TOMLDecodeError:
            continue
        return match.start()
    raise AssertionError("a value of a parsed document has an end")


def dotted(path: KeyPath) -> str:
    """A key as TOML writes it."""
    parts = [str(part) for part in path]
    return ".".join(part if _BARE.fullmatch(part) else to_toml(part) for part in parts)
