"""Load worldflux.toml strictly: every problem at once, each at its place.

Precedence: command line > `WORLDFLUX_*` environment > worldflux.toml > model preset > defaults.
Only what was set reaches `TrainingConfig` and the model's configuration, so that a default never
overrides a family's own recipe.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from worldflux import alpha
from worldflux.core.config import WorldModelConfig
from worldflux.models.catalog import MODEL_CATALOG
from worldflux.training.config import TrainingConfig

from .config_sections import (
    architecture_problems,
    build_architecture,
    known_keys,
    training_problems,
)
from .document import Document, read_document, unusable_values
from .overrides import apply, from_assignments, from_environment
from .problems import (
    Problem,
    ProjectFileError,
    expectation,
    quoting_hint,
    shown,
    unknown_key_hint,
)
from .sections import ProjectSections
from .toml_positions import KeyPath

_SECTIONS = TypeAdapter(ProjectSections)
_REQUIRED_HINTS = {
    "project_name": 'project_name = "my-agent"',
    "environment": 'environment = "Pendulum-v1"',
    "model": f'model = "{next(iter(MODEL_CATALOG))}"; worldflux models list prints the others',
}


@dataclass(frozen=True)
class Project:
    """A checked project: its folder, its sections, and the configurations made from them."""

    root: Path
    path: Path
    sections: ProjectSections
    document: Document

    def where(self, *path: str) -> str:
        """The place of a key's value, for messages: `worldflux.toml:3:15`, or its override."""
        return self.document.where(path, value=True)[0]

    def is_set(self, *path: str) -> bool:
        """Whether the user gave this key, in the file, the environment or on the command line."""
        table: Any = self.document.data
        for part in path:
            if not isinstance(table, dict) or part not in table:
                return False
            table = table[part]
        return True

    def training_config(self) -> TrainingConfig:
        """The training configuration, which knows the fields that were set."""
        return TrainingConfig(**self.sections.training)

    def model_config(
        self,
        obs_shape: tuple[int, ...],
        action_dim: int,
        action_type: str = "continuous",
        **spaces: Any,
    ) -> WorldModelConfig:
        """The model's configuration for an environment of these shapes.

        Args:
            spaces: `observation_modalities` and `action_spec`, where the environment names its
                observations or takes several actions.

        Raises:
            ProjectFileError: where [architecture] contradicts the environment, at the key.
        """
        return build_architecture(
            self.document,
            self.sections.model,
            self.sections.environment,
            {
                "obs_shape": obs_shape,
                "action_dim": action_dim,
                "action_type": action_type,
                **spaces,
            },
        )


def load_project(
    path: Path | str,
    overrides: Sequence[str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    settings_from: str = "",
) -> Project:
    """The project of a worldflux.toml.

    Args:
        path: the file, or the folder that holds worldflux.toml.
        overrides: `section.key=value` texts; later ones win.
        settings: what a run recorded, in place of the file's and the environment's settings.
        settings_from: where that was recorded, for messages.

    Raises:
        ConfigurationError: when there is no file to read.
        ProjectFileError: with every problem of the file and of the overrides.
    """
    document = read_document(Path(path))
    _refuse_alpha(document)
    variables: Mapping[str, str] = os.environ
    if settings is not None:
        document.data, variables = copy.deepcopy(dict(settings)), {}
        document.labels = {(key,): settings_from for key in settings}
    problems = _apply_overrides(document, variables, overrides)
    unusable: set[KeyPath] = set()
    for key, message in unusable_values(document.data):
        unusable.add(key)
        problems.append(document.problem(key, message, value=True))
    sections = _check_sections(document, unusable, problems)
    problems += architecture_problems(document, unusable)
    problems += training_problems(document, unusable)
    if problems or sections is None:
        raise ProjectFileError(_in_order(problems))
    root = document.path.absolute().parent
    return Project(root, document.path.absolute(), sections, document)


def _refuse_alpha(document: Document) -> None:
    changes = alpha.project_changes(document.data)
    if not changes:
        return
    hint = f"{alpha.project_command(document.data)} writes today's project and keeps copies\n"
    hint += f"    of the files that it replaces; or change this one ({alpha.PAGE}):"
    for path, change in changes:
        hint += f"\n    {document.where(path)[0]}: {'.'.join(path)}: {change}"
    raise ProjectFileError([document.problem((), f"{alpha.ALPHA} wrote this file", hint=hint)])


def _apply_overrides(
    document: Document, variables: Mapping[str, str], assignments: Sequence[str]
) -> list[Problem]:
    names = [field.name for field in dataclasses.fields(ProjectSections)]
    top_level = [name for name in names if name in _REQUIRED_HINTS]
    sections = [name for name in names if name not in _REQUIRED_HINTS]
    from_env, problems = from_environment(variables, sections, top_level)
    from_flags, flag_problems = from_assignments(assignments)
    problems += flag_problems
    for override in [*from_env, *from_flags]:
        problem = apply(document.data, override)
        if problem is None:
            document.labels[override.path] = override.label
        else:
            problems.append(problem)
    return problems


def _check_sections(
    document: Document, unusable: set[KeyPath], problems: list[Problem]
) -> ProjectSections | None:
    """Check everything but the fields of [training] and [architecture]."""
    try:
        return _SECTIONS.validate_json(json.dumps(document.data, default=str))
    except ValidationError as error:
        for found in error.errors(include_url=False):
            path = tuple(found["loc"])
            if not any(path[: len(bad)] == bad for bad in unusable):
                problems.append(_explain(document, path, dict(found)))
        return None


def _explain(document: Document, path: KeyPath, error: dict[str, Any]) -> Problem:
    """One of pydantic's errors in our words, at its place in the file."""
    name = str(path[-1])
    section = str(path[0]) if len(path) > 1 else None
    if error["type"] == "missing":
        return document.problem((), f"{name!r} is missing", hint=_REQUIRED_HINTS.get(name))
    if error["type"] == "unexpected_keyword_argument":
        kind = "section" if isinstance(error["input"], dict) and section is None else "key"
        place = f" in [{section}]" if section else ""
        other = next(
            (other for other in known_keys(document) if name in _keys(document, other)), None
        )
        hint = unknown_key_hint(name, _keys(document, section), section, other)
        return document.problem(path, f"unknown {kind} {name!r}{place}", hint=hint)
    expected = expectation(error, name)
    given = error["input"]
    message = f"{'.'.join(map(str, path))} = {shown(given)} is not allowed: expected {expected}"
    return document.problem(path, message, hint=quoting_hint(given, expected, path), value=True)


def _keys(document: Document, section: str | None) -> list[str]:
    if section is None:
        return [field.name for field in dataclasses.fields(ProjectSections)]
    return known_keys(document)[section]


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Problems in the order of the file: by line and column, then the ones without a place."""

    def place(problem: Problem) -> tuple[int, int]:
        _, *numbers = problem.where.rsplit(":", 2)
        if len(numbers) == 2 and all(number.isdigit() for number in numbers):
            return int(numbers[0]), int(numbers[1])
        return 1 << 30, 0

    return sorted(problems, key=place)
