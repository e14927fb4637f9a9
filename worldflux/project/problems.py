"""Problems of a project file: each with its place, the source line, a caret and a next step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worldflux.core.config.validation import expectation
from worldflux.errors import ConfigurationError, did_you_mean

from .toml_positions import KeyPath, Span

EXCERPT_CHARS = 96
_MAX_LISTED = 40  # names in a hint; a model's configuration has more
MAX_SHOWN = 20  # a file that is wrong throughout needs no thousand lines


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `where` is `file:line:col`, a flag or an environment variable."""

    where: str
    message: str
    excerpt: str | None = None
    hint: str | None = None

    def __str__(self) -> str:
        hint = f"    hint: {self.hint}" if self.hint else None
        return "\n".join(filter(None, (f"{self.where}: {self.message}", self.excerpt, hint)))


class ProjectFileError(ConfigurationError):
    """worldflux.toml (or an override of it) is not usable; `problems` holds every reason."""

    code = "project-file"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        shown = "\n".join(str(problem) for problem in self.problems[:MAX_SHOWN])
        if len(self.problems) > MAX_SHOWN:
            shown += f"\nand {len(self.problems) - MAX_SHOWN} more"
        count = len(self.problems)
        super().__init__(shown if count == 1 else f"{count} problems\n{shown}")


def excerpt(line: str, span: Span) -> str:
    """The source line with a caret under the span, cut to the width of a terminal."""
    shown = "".join(char if char.isprintable() else " " for char in line.rstrip("\r\n"))
    start = min(span.column - 1, len(shown))
    first = max(0, start - EXCERPT_CHARS // 2) if len(shown) > EXCERPT_CHARS else 0
    window = shown[first : first + EXCERPT_CHARS]
    width = max(1, min(span.width, len(window) - (start - first)))
    number = str(span.line)
    return f"  {number} | {window}\n  {' ' * len(number)} | {' ' * (start - first)}{'^' * width}"


def shown(value: Any) -> str:
    """A value as a user would have written it, short enough for a message."""
    if isinstance(value, (dict, list)):
        return "a table" if isinstance(value, dict) else "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def expected_at(path: KeyPath, error: Mapping[str, Any]) -> tuple[str, str | None]:
    """As `expectation`, in the words of the place in worldflux.toml."""
    if path == ("tasks",):
        return "sections, each written [[tasks]]", None
    if path[0] == "tasks" and error["type"] == "string_pattern_mismatch":
        return "1 to 60 of the characters a-z, A-Z, 0-9, _, . and -", None
    if len(path) == 1 and error["type"] in ("dataclass_type", "dict_type"):
        return f"a section, written [{path[0]}]", None
    return expectation(error)


def quoting_hint(value: Any, expected: str, path: KeyPath) -> str | None:
    """A hint for the commonest slips: quotes around a number, none around a text or a list."""
    wanted = expected.rpartition("expected ")[2]
    takes_text = wanted.startswith("text")
    if wanted.startswith("a list") and isinstance(value, (str, int, float)):
        listed = json.dumps([value])
        return f"write it as a list: {listed}, or --set '{'.'.join(map(str, path))}={listed}'"
    if isinstance(value, (int, float)) and takes_text:
        return f'write it in quotes: "{shown(value)}"'
    if not isinstance(value, str) or takes_text:
        return None
    bare = value.strip()
    is_number = bare.replace(".", "", 1).replace("-", "", 1).isdigit()
    return f"write it without quotes: {bare}" if bare in ("true", "false") or is_number else None


def unknown_key_hint(
    name: str, known: Iterable[str], section: str | None, other: str | None
) -> str:
    """The nearest key, the section where the key belongs, or all keys that there are."""
    names = list(known)
    near = did_you_mean(name, names)
    if other is not None and (section is None or not near):
        return f"{name!r} belongs under [{other}]"
    if near:
        return near
    place = f"[{section}] takes" if section else "the top level takes"
    if len(names) > _MAX_LISTED:
        return f"{place} the fields that worldflux models info prints for the model"
    return f"{place} {', '.join(names)}"
