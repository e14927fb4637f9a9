"""Every setting that a run of a project would use, and where each comes from. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from typing import Any

from worldflux.core.config.validation import field_types

from .loader import MEASURED, Project, known_keys
from .sections import ProjectSections, Section, SweptSection
from .toml_positions import KeyPath

DEFAULT = "default"


@dataclass(frozen=True)
class Setting:
    """A setting: its value, None where nothing sets it, and its origin.

    The origin is "default", "preset MODEL", `worldflux.toml:LINE`, a variable or `--set ...`.
    """

    path: KeyPath
    value: Any
    origin: str


def effective_settings(project: Project) -> list[Setting]:
    """Every setting, a section after the other; what the environment decides is left out."""
    return [
        Setting(leaf, value, _place(project, leaf) or otherwise)
        for path, given, otherwise in _settings(project)
        for leaf, value in _leaves(path, given)
    ]


def _settings(project: Project) -> Iterator[tuple[KeyPath, Any, str]]:
    """Keys with their values, and where a value comes from that is not set."""
    preset = f"preset {project.model_name}"
    recipe, training = project.preset.training_recipe(), project.training
    numbers = training.resolve(project.preset)
    family = {
        "warmup_transitions": recipe.warmup_transitions,
        "collect_steps_per_update": 1 / numbers.update_ratio,
        "pretrain": recipe.pretrain,
    }
    for section, kind in field_types(ProjectSections).items():
        table = getattr(project.sections, section)
        if section == "training":
            for name in field_types(type(training)):
                value = getattr(numbers, name, getattr(training, name))
                of_model = _place(project, ("architecture", name)) or preset
                otherwise = of_model if name in training.RECIPE_FIELDS else DEFAULT
                yield (section, name), value, otherwise
        elif section == "architecture":
            for name, value in _architecture(project).items():
                chosen = name in project.preset.set_fields
                yield (section, name), value, preset if chosen else DEFAULT
        elif section == "tasks":
            for index, task in enumerate(table):
                for field in fields(task):
                    yield (section, index, field.name), getattr(task, field.name), DEFAULT
        elif isinstance(kind, type) and issubclass(kind, Section):
            for name in (field.name for field in fields(table)):
                value = getattr(table, name)
                left = section == "online_collection" and value is None and name in family
                yield (section, name), family[name] if left else value, preset if left else DEFAULT
        else:
            yield (section,), table, DEFAULT


def _architecture(project: Project) -> dict[str, Any]:
    """The fields of the model's configuration, as an agent's model has them."""
    config, recipe = project.preset.for_agent(None), project.preset.training_recipe()
    values = {}
    for name in known_keys(project.document)["architecture"]:
        if name not in MEASURED or name in project.sections.architecture:
            value = getattr(config, name)
            unset = name in config.RECIPE_FIELDS - config.set_fields
            values[name] = getattr(recipe, name, value) if unset else value
    return values


def _place(project: Project, path: KeyPath) -> str | None:
    """Where a key is set: the line of the file, or what overrides it."""
    table: Any = project.document.data
    for part in path:
        if isinstance(table, list) and isinstance(part, int):
            table = table[part]
        else:
            table = table.get(part) if isinstance(table, Mapping) else None
    if table is None:
        return None
    where, span = project.document.where(path, value=True)
    return where if span is None else where.rpartition(":")[0]


def _leaves(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    """The values below a key, as TOML writes them."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves((*path, name), item)
    elif isinstance(value, SweptSection):
        given = {name: item for name, item in vars(value).items() if item not in (None, False, ())}
        yield from _leaves(path, given)
    elif isinstance(value, Enum):
        yield path, value.value
    else:
        yield path, list(value) if isinstance(value, tuple) else value
