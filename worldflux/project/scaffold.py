"""The files of a new project, rendered from `templates/`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import jinja2
import tomli_w

import worldflux
from worldflux.core.config.validation import field_types
from worldflux.errors import WorldFluxError

from .answers import Answers
from .document import FILE_NAME
from .schema import SCHEMA_FILE, schema_text
from .sections import ProjectSections, Section

# Project file -> template. worldflux.toml is last: a folder is a project once it is complete.
TEMPLATES = {
    "train.py": "train.py.j2",
    "dataset.py": "dataset.py.j2",
    "local_dashboard.py": "local_dashboard.py.j2",
    "inference.py": "inference.py.j2",
    "README.md": "README.md.j2",
    ".gitignore": "gitignore.j2",
    FILE_NAME: "worldflux.toml.j2",
}
FILES = (SCHEMA_FILE, *TEMPLATES)


@functools.cache
def templates_root() -> Path:
    """The folder of the templates: inside an installed wheel, or at the top of a checkout."""
    package = Path(worldflux.__file__).parent
    for folder in (package / "_templates", package.parent / "templates"):
        if (folder / TEMPLATES[FILE_NAME]).is_file():
            return folder
    raise WorldFluxError(
        "the project templates are missing from this installation",
        where=str(package),
        hint="pip install --force-reinstall worldflux",
    )


def to_toml(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    text = tomli_w.dumps({"value": value}, multiline_strings=False).strip()
    key, _, literal = text.partition(" = ")
    assert key == "value", f"{type(value).__name__} is no plain TOML value"
    return " ".join(literal.split("\n")) if isinstance(value, list) else literal


def render(answers: Answers) -> dict[str, str]:
    """The text of every generated file, by its path inside the project."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(templates_root()),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["toml"] = to_toml
    values: dict[str, Any] = {"answers": answers, "schema_file": SCHEMA_FILE}
    for name, kind in field_types(ProjectSections).items():
        if isinstance(kind, type) and issubclass(kind, Section):
            values[name] = kind()
    files = {SCHEMA_FILE: schema_text()}
    for name, template in TEMPLATES.items():
        files[name] = environment.get_template(template).render(values)
    return files
