"""The JSON Schema of worldflux.toml, made from the same dataclasses that the loader checks with.

Editors read it through the first line of a generated worldflux.toml to complete keys and to mark
mistakes. It knows names and types; bounds between keys are the loader's to check.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from worldflux.models.catalog import FAMILIES, MODEL_ALIASES, MODEL_CATALOG
from worldflux.training.config import TrainingConfig

from .sections import ProjectSections

SCHEMA_FILE = ".worldflux/schema.json"
_DREAMER_MODELS = "^[Dd][Rr][Ee][Aa][Mm][Ee][Rr]"


def project_schema() -> dict[str, Any]:
    """The schema of a whole file; `model` decides which keys [architecture] takes."""
    definitions: dict[str, Any] = {}
    schema = _closed(ProjectSections, definitions)
    properties = schema["properties"]
    properties["model"]["examples"] = [*MODEL_CATALOG, *MODEL_ALIASES]
    definitions["TrainingConfig"] = _closed(TrainingConfig, definitions)
    properties["training"] = {"$ref": "#/$defs/TrainingConfig"}
    for family in FAMILIES.values():
        definitions[family.__name__] = _closed(family, definitions)
    dreamer, tdmpc2 = (
        {"properties": {"architecture": {"$ref": f"#/$defs/{FAMILIES[name].__name__}"}}}
        for name in ("dreamer", "tdmpc2")
    )
    schema["if"] = {"properties": {"model": {"pattern": _DREAMER_MODELS}}}
    schema["then"], schema["else"] = dreamer, tdmpc2
    properties["architecture"] = {
        "type": "object",
        "description": "Fields of the chosen model's configuration.",
        "properties": {
            name: field
            for family in FAMILIES.values()
            for name, field in definitions[family.__name__]["properties"].items()
        },
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "worldflux.toml",
        **schema,
        "$defs": definitions,
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
