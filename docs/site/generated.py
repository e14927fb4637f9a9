"""What the site takes from the code: a page's `<!-- generated: NAME -->` becomes a table of it.

A hook of MkDocs (mkdocs.yml), and the extension that reads the `#:` comments of fields.
"""

from __future__ import annotations

import importlib
import json
import re
from typing import Any

import griffe

import worldflux
from worldflux.cli.app import LazyCommands
from worldflux.errors import WorldFluxError
from worldflux.models.catalog import list_models
from worldflux.models.registry import our_families
from worldflux.project.schema import field_docs, project_schema
from worldflux.project.sections import SweptSection, TaskSection

HELP = {"terminal_width": 80, "help_option_names": ["-h", "--help"]}
MARK = re.compile(r"<!-- generated: (\w+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs: replace the marks of one page."""
    return MARK.sub(lambda mark: SOURCES[mark[1]](), markdown)


def commands() -> str:
    """The help of every command, as it is printed."""
    parts = []
    for name, command in LazyCommands().items():
        subcommands = getattr(command, "commands", {})
        parts += [_help("##", f"worldflux {name}", command)]
        parts += [_help("###", f"worldflux {name} {sub}", c) for sub, c in subcommands.items()]
    return "\n\n".join(parts)


def _help(level: str, name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True, **HELP)
    return f"{level} {name}\n\n```text\n{context.get_help()}\n```"


def keys() -> str:
    """Every key of worldflux.toml, from the schema that editors read."""
    schema = project_schema()
    sections = {
        name: schema["$defs"][part["$ref"].rpartition("/")[2]]
        for name, part in schema["properties"].items()
        if "$ref" in part
    }
    top = {n: p for n, p in schema["properties"].items() if n not in {*sections, "architecture"}}
    parts = ["## Top level", _table(top)]
    for name, section in sections.items():
        parts += [f"## [{name}]", section["description"], _table(section["properties"])]
        if name == "sweep":
            swept = schema["$defs"][SweptSection.__name__]
            parts += ["A parameter is a table:", _table(swept["properties"])]
    task = schema["$defs"][TaskSection.__name__]
    parts += ["## [[tasks]]", task["description"], _table(task["properties"])]
    for family in our_families().values():
        section = schema["$defs"][family.config_class.__name__]
        parts += [f"## [architecture] of {family.name}", _table(section["properties"])]
    return "\n\n".join(parts)


def _table(properties: dict[str, Any]) -> str:
    rows = [
        f"| `{name}` | {_cell(allowed(part))} | {_default(part)} | {_cell(part['description'])} |"
        for name, part in properties.items()
    ]
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])


def _default(part: dict[str, Any]) -> str:
    return f"`{json.dumps(part['default'])}`" if part.get("default") is not None else ""


def allowed(part: dict[str, Any]) -> str:
    """What a key takes, in words, with its bounds."""
    if "anyOf" in part:
        return allowed(next(kind for kind in part["anyOf"] if kind.get("type") != "null"))
    if "enum" in part:
        return ", ".join(f'"{value}"' for value in part["enum"])
    kinds = {"integer": "whole number", "number": "number", "string": "text", "array": "list"}
    words = {**kinds, "boolean": "true or false", "object": "table"}[part.get("type", "object")]
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to",
              "exclusiveMaximum": "below"}  # fmt: skip
    given = [f"{word} {part[key]:,}" for key, word in bounds.items() if key in part]
    return " ".join([words, *given])


def presets() -> str:
    """Every preset of the catalogue with its true number of parameters."""
    rows = [
        f"| `{name}` | {entry['parameters']:,} | {_cell(entry['description'])} |"
        for name, entry in list_models(verbose=True, surface="all").items()
    ]
    return "\n".join(["| model | parameters | |", "|---|---:|---|", *rows])


def errors() -> str:
    """Every error class with its exit code."""
    kinds = [getattr(worldflux, name) for name in worldflux.__all__]
    kinds = [k for k in kinds if isinstance(k, type) and issubclass(k, WorldFluxError)]
    rows = [
        f"| {kind.exit_code} | `{kind.code}` | `{kind.__name__}` | "
        f"{_cell((kind.__doc__ or '').partition(chr(10))[0])} |"
        for kind in sorted(kinds, key=lambda kind: kind.exit_code)
    ]
    return "\n".join(["| exit code | code | class | when |", "|---|---|---|---|", *rows])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


SOURCES = {
    "commands": commands,
    "keys": keys,
    "presets": presets,
    "errors": errors,
}


class FieldComments(griffe.Extension):
    """Fields of our configurations say what they mean in `#:` comments, as in the schema."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        """Griffe: the class has been read from its file."""
        if cls.name.endswith("Config"):
            found = getattr(importlib.import_module(cls.module.path), cls.name)
            for name, text in field_docs(found).items():
                if name in cls.members:
                    cls.members[name].docstring = griffe.Docstring(text, parent=cls.members[name])
