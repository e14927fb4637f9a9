"""Writes the API reference, a Markdown page per topic, from the docstrings of the public names.

python docs/generate_reference.py [FOLDER]    docs/reference by default, which git ignores
"""

from __future__ import annotations

import dataclasses
import enum
import importlib
import inspect
import json
import re
import sys
from collections import ChainMap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from worldflux.project.schema import field_docs, project_schema

FOLDER = Path(__file__).parent / "reference"
PAGES: dict[str, tuple[str, str, list[str]]] = {
    "models.md": (
        "Models",
        "worldflux",
        ["create_world_model", "get_config", "list_models", "get_model_info", "MODEL_ALIASES",
         "MODEL_CATALOG", "WorldModel", "DreamerV3WorldModel", "TDMPC2WorldModel",
         "OfficialBackendHandle", "set_seed"],
    ),
    "configurations.md": (
        "Configurations",
        "worldflux",
        ["WorldModelConfig", "DreamerV3Config", "TDMPC2Config", "LatentType", "DynamicsType"],
    ),
    "data_types.md": (
        "Data types",
        "worldflux",
        ["State", "Batch", "ActionPayload", "ActionSequence", "ConditionPayload",
         "WorldModelInput", "ModelOutput", "LossOutput", "Trajectory", "Capability",
         "ModalitySpec", "ActionSpec", "StateSpec", "PredictionSpec", "SequenceLayout"],
    ),
    "components.md": (
        "Component slots",
        "worldflux",
        ["ObservationEncoder", "ActionConditioner", "DynamicsModel", "Decoder",
         "RolloutExecutor"],
    ),
    "training.md": (
        "Training",
        "worldflux.training",
        ["Trainer", "TrainingConfig", "TrainingResult", "ReplayBuffer", "train", "JobHandle",
         "JobStatus"],
    ),
    "callbacks.md": (
        "Callbacks",
        "worldflux.training.callbacks",
        ["Callback", "CheckpointCallback", "LoggingCallback", "EarlyStoppingCallback",
         "ProgressCallback"],
    ),
    "errors.md": (
        "Errors",
        "worldflux",
        ["WorldFluxError", "*errors"],
    ),
}  # fmt: skip
SECTION = re.compile(r"(Args|Attributes|Raises|Returns): *(.*)")


def write(folder: Path) -> None:
    """Write every page."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in rendered().items():
        (folder / name).write_text(text, encoding="utf-8")


def rendered() -> dict[str, str]:
    """Every page by file name."""
    pages = {}
    for file, (title, module_name, names) in PAGES.items():
        module = importlib.import_module(module_name)
        parts = [f"# {title}", "Generated from the docstrings by `make reference`."]
        for name in _expanded(names):
            parts.append(_entry(module_name, name, getattr(module, name)))
        pages[file] = "\n\n".join(parts) + "\n"
    pages["project_file.md"] = _project_file()
    index = ["# Reference", "Generated from the docstrings by `make reference`."]
    lines = ["- [worldflux.toml](project_file.md): every key"]
    for file, (title, module_name, names) in PAGES.items():
        listed = ", ".join(f"`{name}`" for name in _expanded(names))
        lines.append(f"- [{title}]({file}), `from {module_name} import`: {listed}")
    pages["README.md"] = "\n\n".join([*index, "\n".join(lines)]) + "\n"
    return pages


def _expanded(names: list[str]) -> list[str]:
    """`*errors` means every further error class that the package exports."""
    import worldflux
    from worldflux.errors import WorldFluxError

    errors = [
        name
        for name in worldflux.__all__
        if inspect.isclass(value := getattr(worldflux, name)) and issubclass(value, WorldFluxError)
    ]
    given = [name for name in names if name != "*errors"]
    further = [name for name in errors if name not in given] if "*errors" in names else []
    return given + further


def _entry(module_name: str, name: str, value: Any) -> str:
    if inspect.isclass(value):
        return _class(name, value)
    if callable(value):
        return "\n\n".join([f"## {name}", _signature(name, value), *_doc(value), _source(value)])
    kind = f"`{type(value).__name__}` of {len(value)} entries, from `{module_name}`."
    rows = [f"| `{key}` | {_cell(entry)} |" for key, entry in value.items()]
    return "\n\n".join([f"## {name}", kind, "\n".join(["| name | entry |", "|---|---|", *rows])])


def _class(name: str, cls: type) -> str:
    parts = [f"## {name}"]
    bases = [b.__name__ for part in _written(cls) for b in part.__bases__ if b is not object]
    bases = [name for name in bases if name not in {part.__name__ for part in _written(cls)}]
    if bases:
        parts.append("Bases: " + ", ".join(f"`{base}`" for base in bases))
    is_data, is_protocol = dataclasses.is_dataclass(cls), getattr(cls, "_is_protocol", False)
    is_plain = not is_data and not is_protocol and not issubclass(cls, enum.Enum)
    if is_plain and any("__init__" in vars(part) for part in _written(cls)):
        parts.append(_signature(name, cls.__init__, skip_first=True))
    parts += _doc(cls)
    if issubclass(cls, enum.Enum):
        parts.append("\n".join(f"- `{m.name}` = `{m.value!r}`" for m in cls))
    if is_data:
        parts.append(_fields(cls))
    for method, value in _methods(cls).items():
        if isinstance(value, property):
            parts += [f"### {name}.{method}", *_doc(value)]
        else:
            parts += [f"### {name}.{method}", _signature(method, value), *_doc(value)]
    if hasattr(cls, "exit_code"):
        parts.append(f"Code `{cls.code}`, exit code {cls.exit_code}.")  # type: ignore[attr-defined]
    return "\n\n".join([part for part in (*parts, _source(cls)) if part])


def _written(cls: type) -> list[type]:
    """The class, and its base classes in the same package that no page names."""
    named = {name for _, _, names in PAGES.values() for name in names}
    package = cls.__module__.rpartition(".")[0]
    bases = [
        base
        for base in cls.__mro__[1:]
        if package.startswith("worldflux.models.")
        and base.__module__.startswith(f"{package}.")
        and base.__name__ not in named
    ]
    return [cls, *bases]


def _methods(cls: type) -> dict[str, Any]:
    """Public methods and properties that the class itself documents."""
    found = {}
    for name, value in ChainMap(*(dict(vars(part)) for part in _written(cls))).items():
        plain = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        is_method = inspect.isfunction(plain) or isinstance(plain, property)
        if is_method and not name.startswith("_") and plain.__doc__:
            found[name] = plain
    return found


def _signature(name: str, function: Callable[..., Any], skip_first: bool = False) -> str:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if skip_first or (parameters and parameters[0].name in ("self", "cls")):
        parameters = parameters[1:]
    shown, starred = [], False
    for parameter in parameters:
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            shown.append("*")
        starred = starred or parameter.kind in (parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL)
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}
        text = stars.get(parameter.kind, "") + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            text += f" = {_value(parameter.default)}"
        shown.append(text)
    returned = signature.return_annotation
    arrow = "" if skip_first or returned is signature.empty else f" -> {returned}"
    line = f"{name}({', '.join(shown)}){arrow}"
    if len(line) > 90:
        body = "".join(f"    {text},\n" for text in shown)
        line = f"{name}(\n{body}){arrow}"
    return f"```text\n{line}\n```"


def _project_file() -> str:
    """Every key of worldflux.toml, from the schema that editors read."""
    schema = project_schema()
    sections = {
        name: schema["$defs"][part["$ref"].rpartition("/")[2]]
        for name, part in schema["properties"].items()
        if "$ref" in part
    }
    top = {n: part for n, part in schema["properties"].items() if n not in sections}
    parts = ["# worldflux.toml", "Generated from the sections by `make reference`."]
    parts += ["## Top level", _keys(top)]
    for name, section in sections.items():
        parts += [f"## [{name}]", section["description"], _keys(section["properties"])]
    families = "[configurations.md](configurations.md)"
    parts += ["## [architecture]", f"The fields of the model's configuration: {families}."]
    return "\n\n".join(parts) + "\n"


def _keys(properties: dict[str, Any]) -> str:
    rows = []
    for name, part in properties.items():
        default = f"`{json.dumps(part['default'])}`" if part.get("default") is not None else ""
        rows.append(
            f"| `{name}` | {_cell(_allowed(part))} | {default} | {_cell(part['description'])} |"
        )
    return "\n".join(["| key | value | default | meaning |", "|---|---|---|---|", *rows])


def _allowed(part: dict[str, Any]) -> str:
    """What a key takes, in words."""
    if "anyOf" in part:
        return _allowed(next(kind for kind in part["anyOf"] if kind.get("type") != "null"))
    if "enum" in part:
        return ", ".join(f'"{value}"' for value in part["enum"])
    kinds = {"integer": "whole number", "number": "number", "string": "text", "array": "list"}
    words = {**kinds, "boolean": "true or false", "object": "table"}[part.get("type", "object")]
    bounds = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to",
              "exclusiveMaximum": "below"}  # fmt: skip
    given = [f"{word} {part[key]:,}" for key, word in bounds.items() if key in part]
    return " ".join([words, *given])


def _fields(cls: Any) -> str:
    rows = []
    docs = field_docs(cls)
    for field in dataclasses.fields(cls):
        if field.default is not dataclasses.MISSING:
            default = f"`{_value(field.default)}`"
        elif field.default_factory is not dataclasses.MISSING:
            default = f"`{_value(field.default_factory())}`"
        else:
            default = "required"
        kind = field.type if isinstance(field.type, str) else field.type.__name__
        cells = [_cell(f"`{kind}`"), _cell(default), *([_cell(docs[field.name])] if docs else [])]
        rows.append(f"| `{field.name}` | {' | '.join(cells)} |")
    if docs:
        return "\n".join(["| field | type | default | meaning |", "|---|---|---|---|", *rows])
    return "\n".join(["| field | type | default |", "|---|---|---|", *rows])


def _value(value: Any) -> str:
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    return repr(value)


def _doc(value: Any) -> list[str]:
    """A docstring as Markdown: its sections become lists."""
    text = inspect.getdoc(value) or ""
    parts: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        first, _, rest = block.partition("\n")
        match = SECTION.fullmatch(first)
        if match is None:
            is_code = all(line.startswith("    ") for line in block.splitlines())
            parts.append(f"```text\n{inspect.cleandoc(block)}\n```" if is_code else block)
            continue
        if match[2]:
            parts.append(f"**{match[1]}:** " + " ".join([match[2], *rest.split()]))
            continue
        items = re.split(r"\n {4}(?=\S)", "\n" + rest)
        entries = [" ".join(item.split()) for item in items if item.strip()]
        shown = [re.sub(r"^([\w*`, .]+?):\s", r"`\1`: ", entry) for entry in entries]
        parts.append(f"**{match[1]}**\n\n" + "\n".join(f"- {entry}" for entry in shown))
    return [part for part in parts if part]


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else ", ".join(f"{k}: {v}" for k, v in value.items())
    return text.replace("|", "\\|")


def _source(value: Any) -> str:
    return f"Source: `{value.__module__.replace('.', '/')}.py`"


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
