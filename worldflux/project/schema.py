"""The JSON Schema of worldflux.toml, made from the same dataclasses that the loader checks with.

Editors read it through the first line of a generated worldflux.toml to complete keys and to mark
mistakes. It knows names and types; bounds between keys are the loader's to check.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from worldflux.models.catalog import MODEL_ALIASES, list_models
from worldflux.models.registry import Family, families
from worldflux.training.config import TrainingConfig

from .sections import ProjectSections

SCHEMA_FILE = ".worldflux/schema.json"


def project_schema() -> dict[str, Any]:
    """The schema of a whole file; `model` decides which keys [architecture] takes."""
    definitions: dict[str, Any] = {}
    schema = _closed(ProjectSections, definitions)
    properties = schema["properties"]
    properties["model"]["examples"] = [*list_models(surface="all"), *MODEL_ALIASES]
    definitions["TrainingConfig"] = _closed(TrainingConfig, definitions)
    properties["training"] = {"$ref": "#/$defs/TrainingConfig"}
    rows = list(families().values())
    for row in rows:
        definitions[row.config_class.__name__] = _closed(row.config_class, definitions)
    schema["allOf"] = [_architecture_of(row) for row in rows]
    properties["architecture"] = {
        "type": "object",
        "description": "Fields of the chosen model's configuration.",
        "properties": {
            name: field
            for row in rows
            for name, field in definitions[row.config_class.__name__]["properties"].items()
        },
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "worldflux.toml",
        **schema,
        "$defs": definitions,
    }


def _architecture_of(row: Family) -> dict[str, Any]:
    """[architecture] takes the family's fields where `model` starts with one of its names."""
    names = {*row.prefixes, *(alias.partition("-")[0] for alias in row.aliases)}
    either_case = ("".join(f"[{c.upper()}{c}]" if c.isalpha() else c for c in n) for n in names)
    pattern = f"^({'|'.join(sorted(either_case))})([:-]|$)"
    reference = {"$ref": f"#/$defs/{row.config_class.__name__}"}
    return {
        "if": {"properties": {"model": {"pattern": pattern}}, "required": ["model"]},
        "then": {"properties": {"architecture": reference}},
    }


def _closed(cls: type, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a dataclass that takes no other keys; its definitions join the others."""
    schema = TypeAdapter(cls).json_schema()
    definitions.update(schema.pop("$defs", {}))
    schema["additionalProperties"] = False
    schema["description"] = (cls.__doc__ or "").partition("\n")[0]
    schema.pop("title", None)
    for field in schema["properties"].values():
        field.pop("title", None)
    return schema
