"""`--set section.key=value` and `WORLDFLUX_SECTION__KEY`: other ways in, through the same door.

A value is read as TOML (`3`, `1e-3`, `true`, `"text"`, `[3, 64, 64]`); text that is no TOML value
and does not begin like one is taken as a string, so that `--set training.device=cpu` works. What
stands on the command line wins over the environment, which wins over the file. An environment
variable that is empty counts as not set.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worldflux.errors import did_you_mean

from .problems import Problem
from .toml_positions import MAX_KEY_PARTS, MAX_LINE_CHARS, LimitExceeded, scan

PREFIX = "WORLDFLUX_"


@dataclass(frozen=True)
class Override:
    """A value for the key at `path`; `label` says in messages where it came from."""

    path: tuple[str, ...]
    value: Any
    label: str


def from_assignments(assignments: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    """The overrides of `section.key=value` texts, and what is wrong with the others."""
    overrides, problems = [], []
    for text in assignments:
        label = f"--set {text if len(text) <= 80 else text[:77] + '...'}"
        name, equals, raw = text.partition("=")
        path = tuple(part.strip() for part in name.split("."))
        if not equals or not all(path) or len(path) > MAX_KEY_PARTS:
            hint = "write --set section.key=value, such as --set training.device=cpu"
            problems.append(Problem(label, "this names no key", hint=hint))
            continue
        try:
            overrides.append(Override(path, parse_value(raw), label))
        except ValueError as error:
            problems.append(Problem(label, str(error)))
    return overrides, problems


def from_environment(
    environ: Mapping[str, str], sections: Iterable[str], top_level: Iterable[str]
) -> tuple[list[Override], list[Problem]]:
    """The overrides in `WORLDFLUX_SECTION__KEY` and `WORLDFLUX_MODEL`-like variables."""
    known = {section.upper() for section in sections}
    plain = {f"{PREFIX}{key.upper()}": key for key in top_level}
    overrides, problems = [], []
    for name in sorted(environ):
        section, separator, key = name.removeprefix(PREFIX).partition("__")
        if not name.startswith(PREFIX) or not environ[name]:
            continue
        if name in plain:
            path: tuple[str, ...] = (plain[name],)
        elif separator and section in known:
            path = (section.lower(), key.lower())
        elif separator:
            hint = did_you_mean(section, known)
            problems.append(Problem(name, f"there is no section {section.lower()!r}", hint=hint))
            continue
        else:
            continue  # WORLDFLUX_DEBUG and the like are no configuration
        try:
            overrides.append(Override(path, parse_value(environ[name]), name))
        except ValueError as error:
            problems.append(Problem(name, str(error)))
    return overrides, problems


def parse_value(raw: str) -> Any:
    """One TOML value, or the text itself where it does not look like one.

    Raises:
        ValueError: for an unfinished string, list or table, and for text that is too long.
    """
    text = raw.strip()
    if len(text) > MAX_LINE_CHARS - 10 or any(char in text for char in "\n\r\0"):
        raise ValueError(f"a value is one line of at most {MAX_LINE_CHARS - 10} characters")
    line = f"value = {text}\n"
    try:
        scan(line)
        parsed = tomllib.loads(line)
    except LimitExceeded as error:
        raise ValueError(error.message) from None
    except (ValueError, RecursionError):
        if not text or text[0] in "\"'[{":
            raise ValueError(f"{text!r} is not a TOML value") from None
        return text
    return parsed["value"]


def apply(data: dict[str, Any], override: Override) -> Problem | None:
    """Put the value where it belongs in `data`, making sections on the way."""
    table = data
    for depth, part in enumerate(override.path[:-1], start=1):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            name = ".".join(override.path[:depth])
            return Problem(override.label, f"{name!r} is not a section")
    table[override.path[-1]] = override.value
    return None
