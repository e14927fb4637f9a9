"""The JSON Schema of worldflux.toml, made from the same dataclasses that the loader checks with.

Editors read it through the first line of a generated worldflux.toml to complete keys and to mark
mistakes. It knows names and types; bounds between keys are the loader's to check.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import TypeAdapter

from worldflux import __version__
from worldflux.core.config.validation import field_types
from worldflux.files import write_text
from worldflux.models.catalog import MODEL_ALIASES, list_models
from worldflux.models.registry import Family, families
from worldflux.training.config import TrainingConfig

from .sections import ProjectSections

SCHEMA_FILE = ".worldflux/schema.json"
_WRITTEN_BY = f"worldflux {__version__}"
_COMMENT = re.compile(r" +#: (.*)")
_FIELD = re.compile(r"    (\w+): [^#]*(?:#: (.*))?")


@functools.cache
def schema_text() -> str:
    """The schema as its file holds it."""
    return json.dumps(project_schema(), indent=1) + "\n"


def renew_schema(root: Path) -> None:
    """Rewrite a project's schema that another version wrote; a folder that takes none keeps it."""
    file = root / SCHEMA_FILE
    with contextlib.suppress(OSError, ValueError):
        if json.loads(file.read_text(encoding="utf-8")).get("$comment") != _WRITTEN_BY:
            write_text(file, schema_text())


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
        "$comment": _WRITTEN_BY,
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
    inner = schema.pop("$defs", {})
    schema["additionalProperties"] = False
    for name in getattr(cls, "UNREAD", ()):
        del schema["properties"][name]
    _describe(schema, cls)
    for kind in _dataclasses_in(cls):
        _describe(inner[kind.__name__], kind)
    definitions.update(inner)
    return schema


def _dataclasses_in(cls: type) -> Iterator[type]:
    """The dataclasses of its fields, as values or as values of a table, and of theirs."""
    for kind in field_types(cls).values():
        for part in (kind, *get_args(kind)):
            if dataclasses.is_dataclass(part) and isinstance(part, type):
                yield part
                yield from _dataclasses_in(part)


def _describe(schema: dict[str, Any], cls: type) -> None:
    """Put the class's first line and the meaning of its fields where an editor shows them."""
    schema.pop("title", None)
    schema["description"] = (cls.__doc__ or "").partition("\n")[0]
    docs = field_docs(cls)
    for name, field in schema["properties"].items():
        field.pop("title", None)
        if name in docs:
            field["description"] = docs[name]


def field_docs(cls: type) -> dict[str, str]:
    """What each field means: the `#:` comments above it or after it, base classes included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if "__annotations__" in vars(base):
            docs.update(_own_docs(base))
    return docs


def _own_docs(cls: type) -> dict[str, str]:
    docs: dict[str, str] = {}
    comments: list[str] = []
    for line in inspect.getsource(cls).splitlines():
        if comment := _COMMENT.fullmatch(line):
            comments.append(comment[1])
            continue
        if field := _FIELD.fullmatch(line):
            comments += [field[2]] if field[2] else []
            docs |= {field[1]: " ".join(comments)} if comments else {}
        comments = []
    return docs
