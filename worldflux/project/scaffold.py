"""The files of a new project, rendered from `templates/`."""

from __future__ import annotations

import functools
import importlib.util
from pathlib import Path
from typing import Any

import jinja2
import tomli_w
from jinja2.sandbox import ImmutableSandboxedEnvironment

import worldflux
from worldflux.core.config.validation import field_types
from worldflux.errors import ConfigurationError, WorldFluxError

from .answers import Answers
from .document import FILE_NAME
from .placement import OURS
from .schema import SCHEMA_FILE, schema_text
from .sections import ProjectSections, Section

SUFFIX = ".j2"
_NO_TEMPLATES = {".git", "__pycache__", OURS.rstrip("/")}


@functools.cache
def templates_root() -> Path:
    """The folder of the templates: inside an installed wheel, or at the top of a checkout."""
    package = Path(worldflux.__file__).parent
    for folder in (package / "_templates", package.parent / "templates"):
        if (folder / (FILE_NAME + SUFFIX)).is_file():
            return folder
    raise WorldFluxError(
        "the project templates are missing from this installation",
        where=str(package),
        hint="pip install --force-reinstall worldflux",
    )


def own_templates(source: str) -> Path:
    """The folder that `--template` names: a folder, or `templates` of an installed package."""
    folder = Path(source).expanduser()
    if not (folder / (FILE_NAME + SUFFIX)).is_file() and source.isidentifier():
        spec = importlib.util.find_spec(source)
        places = (spec and spec.submodule_search_locations) or []
        folder = next((Path(place) / "templates" for place in places), folder)
    if not (folder / (FILE_NAME + SUFFIX)).is_file():
        raise ConfigurationError(
            f"there are no templates in {source!r}",
            hint=f"--template names a folder that holds a {FILE_NAME}{SUFFIX}, or an installed "
            "package whose folder templates does",
        )
    return folder.resolve()


def templates_in(folder: Path) -> dict[str, str]:
    """Project file -> template. worldflux.toml is last: a folder is a project once it is complete.

    A file that does not end with `.j2` is copied as it is.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if _NO_TEMPLATES & {*name.parts} or (path.is_dir() and not path.is_symlink()):
            continue
        if path.is_symlink() or not path.is_file():
            raise ConfigurationError("a template is a regular file", where=str(path))
        found[name.as_posix().removesuffix(SUFFIX)] = name.as_posix()
    found[FILE_NAME] = found.pop(FILE_NAME)
    return found


def to_toml(value: Any) -> str:
    """A value as TOML writes it, on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(to_toml, value))}]"
    text = tomli_w.dumps({"value": value}, multiline_strings=False).strip()
    key, _, literal = text.partition(" = ")
    assert key == "value", f"{type(value).__name__} is no plain TOML value"
    return literal


def render(answers: Answers, folder: Path | None = None) -> dict[str, str]:
    """The text of every generated file, by its path inside the project.

    Args:
        folder: templates to use instead of ours, which they may include as `worldflux/NAME`.
    """
    ours = jinja2.FileSystemLoader(templates_root())
    own = jinja2.FileSystemLoader(folder) if folder else ours
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.ChoiceLoader([own, jinja2.PrefixLoader({"worldflux": ours})]),
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
    root = folder or templates_root()
    for name, template in templates_in(root).items():
        try:
            if template.endswith(SUFFIX):
                files[name] = environment.get_template(template).render(values)
            else:
                files[name] = (root / template).read_bytes().decode()
        except (jinja2.TemplateError, TypeError, ValueError) as error:
            place = str(root / template)
            if isinstance(error, jinja2.TemplateSyntaxError):
                place += f":{error.lineno}"
            raise ConfigurationError(f"not a usable template: {error}", where=place) from None
    return files
