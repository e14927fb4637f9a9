"""`[training]` and `[architecture]`: keys checked by the configuration classes that own them."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from worldflux.backends.handle import BACKENDS, NATIVE
from worldflux.core.config import WorldModelConfig
from worldflux.core.config.validation import field_types
from worldflux.errors import ConfigurationError, ModelNotFoundError, did_you_mean
from worldflux.layout import SAVED_MODEL_USE
from worldflux.models.catalog import default_config, family_of_model
from worldflux.models.registry import Family, our_families
from worldflux.training.config import TrainingConfig

from .document import Document
from .problems import Problem, ProjectFileError, quoting_hint, unknown_key_hint
from .sections import ProjectSections
from .toml_positions import KeyPath

MAX_MESSAGE_CHARS = 300
_FIELD = re.compile(r"^\w+\.(\w+)")
_STAND_IN_ACTION_DIM = 1000


def known_keys(document: Document) -> dict[str, list[str]]:
    """The keys of each section; [architecture] has those of the chosen model, or of all."""
    keys = {}
    for name, annotation in field_types(ProjectSections).items():
        if dataclasses.is_dataclass(annotation):
            keys[name] = [field.name for field in dataclasses.fields(annotation)]
    keys["training"] = _field_names(TrainingConfig)
    family = _family(document)
    rows = our_families().values() if family is None else [family]
    names = [name for row in rows for name in _field_names(row.config_class)]
    keys["architecture"] = list(dict.fromkeys(names))
    return keys


def _field_names(cls: type) -> list[str]:
    unread: frozenset[str] = getattr(cls, "UNREAD", frozenset())
    return [
        field.name for field in dataclasses.fields(cls) if field.init and field.name not in unread
    ]


def _family(document: Document) -> Family | None:
    model = document.data.get("model")
    try:
        return family_of_model(model) if isinstance(model, str) else None
    except ModelNotFoundError:
        return None


def training_problems(document: Document, unusable: set[KeyPath]) -> list[Problem]:
    """Everything that is wrong with [training]."""

    def build(given: Mapping[str, Any]) -> None:
        known = (NATIVE, *BACKENDS)
        config = TrainingConfig(**given)
        if config.backend not in known:
            message = f"backend = {config.backend!r} is not allowed: expected one of "
            hint = did_you_mean(config.backend, known)
            raise ConfigurationError(message + ", ".join(known), hint=hint)

    return _section_problems(document, "training", unusable, build)


def architecture_problems(document: Document, unusable: set[KeyPath]) -> list[Problem]:
    """An unknown model, and everything that is wrong with [architecture] for the chosen one."""
    model = document.data.get("model")
    if not isinstance(model, str):
        return []
    try:
        stand_ins = family_of_model(model).stand_ins
    except ModelNotFoundError as error:
        message, hint = error.message, error.hint
        if os.sep in model or model.startswith((".", "~")):
            message = f"{model!r} is a folder or file; a project begins with a preset"
            hint = SAVED_MODEL_USE.format(path=model)
        return [document.problem(("model",), message, hint=hint, value=True)]

    def build(given: Mapping[str, Any]) -> None:
        """Build with the first stand-in shape that fits; the first one's complaint counts."""
        complaint: ConfigurationError | None = None
        for shape in stand_ins:
            stand_in: dict[str, Any] = {}
            if "observation_modalities" not in given:
                stand_in["obs_shape"] = shape
            if "action_spec" not in given:
                stand_in["action_dim"] = _STAND_IN_ACTION_DIM
            try:
                config = default_config(model, **{**stand_in, **given})
                if (tasks := getattr(config, "num_tasks", 1)) > 1:
                    raise ConfigurationError(
                        f"num_tasks = {tasks} is not allowed: a project trains one task",
                        hint="several tasks train from Python: Trainer(model, config).train(data), "
                        'where batches hold obs = {"obs": ..., "task": indices}',
                    )
                return
            except ConfigurationError as error:
                complaint = complaint or error
        if complaint is not None:
            raise complaint

    return _section_problems(document, "architecture", unusable, build)


def build_architecture(
    document: Document, model: str, environment: str, measured: Mapping[str, Any]
) -> WorldModelConfig:
    """The model's configuration, where what the environment measures is checked, not chosen.

    Raises:
        ProjectFileError: at the key that contradicts the environment or does not fit it.
    """
    given = dict(document.data.get("architecture", {}))
    problems = []
    for name, value in measured.items():
        chosen = given.get(name, value)
        if (tuple(chosen) if isinstance(chosen, list) else chosen) != value:
            message = f"{name} = {chosen} is not allowed: {environment} has {value}"
            hint = "leave the key out; it comes from the environment"
            problems.append(
                document.problem(("architecture", name), message, hint=hint, value=True)
            )
    if problems:
        raise ProjectFileError(problems)
    try:
        return default_config(model, **{**given, **measured})
    except ConfigurationError as error:
        blamed = _named_field(error.message, given)
        path = ("architecture", blamed) if blamed else ("model",)
        raise ProjectFileError(
            [document.problem(path, _message(error), hint=error.hint, value=True)]
        ) from None


def _section_problems(
    document: Document,
    section: str,
    unusable: set[KeyPath],
    build: Callable[[Mapping[str, Any]], object],
) -> list[Problem]:
    """Build the configuration, drop the field that it complains about, and build again."""
    table = document.data.get(section, {})
    if not isinstance(table, dict):
        return []  # told by the check of the sections
    problems, unknown = _unknown_keys(document, section, table)
    given = {
        name: value
        for name, value in table.items()
        if name not in unknown and not any(bad[:2] == (section, name) for bad in unusable)
    }
    while True:
        try:
            build(given)
            return problems
        except ConfigurationError as error:
            blamed = _named_field(error.message, given)
            if blamed is None and problems:
                return problems  # the complaint is about a value that the dropped ones would mend
            path = (section,) if blamed is None else (section, blamed)
            hint = error.hint or quoting_hint(given.get(blamed or ""), _message(error), path)
            problems.append(document.problem(path, _message(error), hint=hint, value=True))
            if blamed is None:
                return problems
            del given[blamed]


def _unknown_keys(
    document: Document, section: str, table: Mapping[str, Any]
) -> tuple[list[Problem], set[str]]:
    known = known_keys(document)
    problems = []
    unknown = {name for name in table if name not in known[section]}
    for name in table:
        if name in unknown:
            other = next((other for other, keys in known.items() if name in keys), None)
            hint = unknown_key_hint(name, known[section], section, other)
            message = f"unknown key {name!r} in [{section}]"
            family = _family(document)
            if section == "architecture" and family and name in family.config_class.UNREAD:
                message, hint = f"{name!r} has no effect on this model", "delete the key"
            problems.append(document.problem((section, name), message, hint=hint))
    return problems, unknown


def _message(error: ConfigurationError) -> str:
    """The error's text, which names the field, without the name of the class."""
    text = _FIELD.sub(lambda match: match[1], error.message)
    return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "..."


def _named_field(message: str, given: Mapping[str, Any]) -> str | None:
    """The given field that a complaint is about: the one it names, or one that it mentions."""
    match = _FIELD.match(message)
    if match and match[1] in given:
        return match[1]
    words = set(re.findall(r"\w+", message))
    return next((name for name in given if name in words), None)
