"""A file of answers to `worldflux init`: the one it writes itself, or one for `--answers`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.models.catalog import resolve
from worldflux.training.config import TrainingConfig

from .answers import DEFAULT_NAME, Answers, complete, environment_id
from .document import read_document, shown_path
from .placement import check_name
from .problems import Problem, ProjectFileError, shown

TEMPLATE, VERSION = "template", "worldflux"
_TEXTS: dict[str, Callable[[str], object]] = {
    "name": check_name,
    "environment": environment_id,
    "model": resolve,
    "device": lambda value: TrainingConfig(device=value),
    TEMPLATE: str,
    VERSION: str,
}
_COUNTS: dict[str, Callable[[Any], object]] = {
    "total_steps": lambda value: TrainingConfig(total_steps=value),
    "batch_size": lambda value: TrainingConfig(batch_size=value),
}


def read_answers(path: Path) -> dict[str, Any]:
    """The checked answers of a TOML file, which need not hold all of them.

    Raises:
        ConfigurationError: there is no such file.
        ProjectFileError: with every problem of the file.
    """
    if not path.is_file():
        raise ConfigurationError("there is no file of answers here", where=shown_path(path))
    document = read_document(path)
    checks: Mapping[str, Callable[[Any], object]] = {**_TEXTS, **_COUNTS}
    problems: list[Problem] = []
    for key, value in document.data.items():
        if key not in checks:
            hint = did_you_mean(key, checks) or f"the answers are {', '.join(checks)}"
            problems.append(document.problem((key,), f"unknown answer {key!r}", hint=hint))
            continue
        try:
            if key in _TEXTS and not isinstance(value, str):
                expected = "is not allowed: expected text in quotes"
                raise ConfigurationError(f"{key} = {shown(value)} {expected}")
            checks[key](value)
        except ConfigurationError as error:
            message = error.message.removeprefix("TrainingConfig.")
            problems.append(document.problem((key,), message, hint=error.hint, value=True))
    if problems:
        raise ProjectFileError(problems)
    return document.data


def completed(given: Mapping[str, Any]) -> Answers:
    """The answers that a file gives, the others by default."""
    answers = {key: value for key, value in given.items() if key not in (TEMPLATE, VERSION)}
    return complete(**{"name": DEFAULT_NAME, **answers})
