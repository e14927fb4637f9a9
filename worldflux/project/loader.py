"""Load worldflux.toml strictly: every problem at once, each at its place.

Precedence: command line > `WORLDFLUX_*` environment > worldflux.toml > model preset > defaults.
Only what was set reaches `TrainingConfig` and the model's configuration, so that a default never
overrides a family's own recipe.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from worldflux import alpha
from worldflux.backends.program import BACKENDS, NATIVE
from worldflux.core import hub
from worldflux.core.config import WorldModelConfig
from worldflux.core.config.validation import field_types
from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.layout import CONFIG_FILE, WEIGHTS_FILE
from worldflux.models.catalog import MODEL_CATALOG, default_config, family_of_model, resolve
from worldflux.models.registry import buildable_config, our_families
from worldflux.training.config import TrainingConfig

from .document import Document, override_label, read_document, shown_path, unusable_values
from .problems import Problem, ProjectFileError, expected_at, quoting_hint, shown, unknown_key_hint
from .sections import ProjectSections, Section, TaskSection
from .swept import PARAMETERS, swept_problems, unknown_in_swept
from .toml_positions import KeyPath

MAX_MESSAGE_CHARS = 300
_CLASS = re.compile(r"^[A-Z]\w*\.")  # before the name of a field
_SECTIONS = TypeAdapter(ProjectSections)
_REQUIRED_HINTS = {
    "project_name": 'project_name = "my-agent"',
    "environment": 'environment = "Pendulum-v1"',
    "model": f'model = "{next(iter(MODEL_CATALOG))}"; worldflux models list prints the others',
}
_ANY_ACTION_DIM = 1000  # the environment's own is measured when the run starts
# Of [architecture]: what the environment decides.
MEASURED = {"obs_shape", "action_dim", "action_type", "observation_modalities", "action_spec"}
ConfigT = TypeVar("ConfigT", TrainingConfig, WorldModelConfig)


@dataclass(frozen=True)
class Project:
    """A checked project: its folder, its sections, and the configurations made from them.

    `preset` is the model's configuration with [architecture], before the environment is known.
    """

    root: Path
    path: Path
    sections: ProjectSections
    document: Document
    training: TrainingConfig
    preset: WorldModelConfig

    def where(self, *path: str) -> str:
        """The place of a key's value, for messages: `worldflux.toml:3:15`, or its override."""
        return self.document.where(path, value=True)[0]

    @property
    def model_name(self) -> str:
        """The catalogue id of the model; the path of a saved one as it is."""
        model = self.sections.model
        return model if is_path(model) else resolve(model)

    @property
    def start_from(self) -> str | None:
        """Whose weights a new run begins with: `start_from`, or the saved model of `model`."""
        model = self.sections.model
        return self.sections.start_from or (model if is_path(model) else None)

    def training_config(self) -> TrainingConfig:
        """The training configuration, which knows the fields that were set."""
        return self.training

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
        shapes = {"obs_shape": obs_shape, "action_dim": action_dim, "action_type": action_type}
        problems = []
        for name, value in {**shapes, **spaces}.items():
            chosen = self.sections.architecture.get(name, value)
            if (tuple(chosen) if isinstance(chosen, list) else chosen) != value:
                environment = self.sections.environment
                message = f"{name} = {chosen} is not allowed: {environment} has {value}"
                hint = "leave the key out; it comes from the environment"
                path = ("architecture", name)
                problems.append(self.document.problem(path, message, hint=hint, value=True))
        if problems:
            raise ProjectFileError(problems)
        try:
            return self.preset.with_overrides(**shapes, **spaces)
        except ConfigurationError as error:
            problem = _refused(self.document, "architecture", self.sections.architecture, error)
            raise ProjectFileError([problem]) from None


def load_project(
    path: Path | str | Project | Document,
    overrides: Sequence[str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
    settings_from: str = "",
    environ: Mapping[str, str] = os.environ,
) -> Project:
    """The project of a worldflux.toml.

    Args:
        path: the file, or the folder that holds worldflux.toml; or a project or its document,
            whose file is not read again.
        overrides: `section.key=value` texts; later ones win.
        settings: what a run recorded, in place of the file's and the environment's settings.
        settings_from: where that was recorded, for messages.
        environ: the variables that may set keys.

    Raises:
        ConfigurationError: when there is no file to read.
        ProjectFileError: with every problem of the file and of the overrides.
    """
    known = path.document if isinstance(path, Project) else path
    document = known.afresh() if isinstance(known, Document) else read_document(Path(known))
    _refuse_alpha(document)
    check = _Check(document)
    if settings is not None:
        document.data = copy.deepcopy(dict(settings))
        document.labels = {(key,): settings_from for key in settings}
    else:
        check.problems += document.set_variables(environ, list(_REQUIRED_HINTS))
    check.problems += document.set_assignments(overrides)
    check.find_unusable()
    sections, training = check.sections(), check.configuration("training", _build_training)
    check.problems += swept_problems(document, sections, known_keys)
    preset = check.architecture()
    if check.problems or sections is None or training is None or preset is None:
        raise ProjectFileError(_in_order(check.problems))
    _check_passed_over(path, overrides, settings)
    file = document.path.absolute()
    return Project(file.parent, file, sections, document, training, preset)


def _check_passed_over(
    path: Path | str | Project | Document,
    overrides: Sequence[str],
    settings: Mapping[str, Any] | None,
) -> None:
    """Refuse a bad value of an override although a later one of its key takes its place."""
    last = {text.partition("=")[0].strip(): text for text in overrides}
    for text in overrides:
        key = text.partition("=")[0].strip()
        if text == last[key]:
            continue
        try:
            load_project(path, list((last | {key: text}).values()), settings=settings)
        except ProjectFileError as error:
            own = [problem for problem in error.problems if problem.where == override_label(text)]
            if own:
                raise ProjectFileError(own) from None


def known_keys(document: Document) -> dict[str, list[str]]:
    """The keys of each section; [architecture] has those of the chosen model, or of all."""
    keys = {
        name: list(field_types(kind))
        for name, kind in field_types(ProjectSections).items()
        if isinstance(kind, type) and issubclass(kind, Section)
    }
    keys["tasks"] = list(field_types(TaskSection))
    keys["training"] = list(field_types(TrainingConfig))
    model = _config_class(document)
    classes: list[Any] = [model] if model else [row.config_class for row in our_families().values()]
    fields = (name for kind in classes for name in field_types(kind) if name not in kind.UNREAD)
    keys["architecture"] = list(dict.fromkeys(fields))
    return keys


def _config_class(document: Document) -> type[WorldModelConfig] | None:
    model = document.data.get("model")
    try:
        if not isinstance(model, str):
            return None
        is_saved = is_path(model)
        return saved_fields(document, model)[0] if is_saved else family_of_model(model).config_class
    except ConfigurationError:
        return None


def is_path(model: str) -> bool:
    """Whether `model` of worldflux.toml names a saved model, and no preset."""
    return os.sep in model or model.startswith((".", "~"))


def saved_fields(document: Document, model: str) -> tuple[type[WorldModelConfig], dict[str, Any]]:
    """Class and fields of a saved model's configuration, but for what an environment decides.

    Raises ConfigurationError where the path, from the project's folder, is no saved model.
    """
    folder = document.path.parent / os.path.expanduser(model)
    if hub.is_reference(model) or not (folder / CONFIG_FILE).is_file():
        raise ConfigurationError(
            f"{model!r} is no folder of a saved model, with {CONFIG_FILE} and {WEIGHTS_FILE}",
            hint=f"name a preset; to begin with saved weights: worldflux train --from {model}",
        )
    saved = buildable_config(folder)
    kept = saved.set_fields - MEASURED - {"device"}
    return type(saved), {name: getattr(saved, name) for name in kept}


def _refuse_alpha(document: Document) -> None:
    if not (changes := alpha.project_changes(document.data)):
        return
    folder = shown_path(document.path.parent)
    place = "" if folder == "." else f" {shlex.quote(folder)}"
    hint = f"worldflux update{place} --from-alpha writes today's project, with your settings\n"
    hint += f"    and a copy of each file that it replaces; what changes ({alpha.PAGE}):"
    for key, change in changes:
        hint += f"\n    {document.where(tuple(key.split('.')))[0]}: {key}: {change}"
    raise ProjectFileError([document.problem((), f"{alpha.ALPHA} wrote this file", hint=hint)])


class _Check:
    """The check of one document, and what it found wrong so far."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.unusable: set[KeyPath] = set()

    def add(self, path: KeyPath, message: str, hint: str | None = None) -> None:
        self.problems.append(self.document.problem(path, message, hint=hint, value=True))

    def find_unusable(self) -> None:
        """Values that are wrong under any key; the other checks leave them out."""
        for path, message in unusable_values(self.document.data):
            self.unusable.add(path)
            self.add(path, message)

    def sections(self) -> ProjectSections | None:
        """Check everything but the fields of [training] and [architecture]."""
        try:
            return _SECTIONS.validate_json(json.dumps(self.document.data, default=str))
        except ValidationError as error:
            for found in error.errors(include_url=False):
                path = tuple(found["loc"])
                if not any(path[: len(bad)] == bad for bad in self.unusable):
                    self.problems.append(_explain(self.document, path, dict(found)))
            return None

    def architecture(self) -> WorldModelConfig | None:
        """An unknown model, and everything that is wrong with [architecture] for the chosen one."""
        model = self.document.data.get("model")
        if not isinstance(model, str):
            return None  # reported by the check of the sections
        try:
            saved = saved_fields(self.document, model) if is_path(model) else None
            kind = family_of_model(model).config_class if saved is None else saved[0]
        except ConfigurationError as error:
            self.add(("model",), error.message, error.hint)
            return None

        def build(given: Mapping[str, Any]) -> WorldModelConfig:
            stand_in = {} if "action_spec" in given else {"action_dim": _ANY_ACTION_DIM}
            if saved is not None:
                return kind(**{**saved[1], **stand_in, **given})
            return default_config(model, **{**stand_in, **given})

        config = self.configuration("architecture", build)
        self._check_tasks(getattr(config, "num_tasks", 1))
        return config

    def _check_tasks(self, num_tasks: int) -> None:
        """Tasks have a name each, and [[tasks]] alone says how many there are."""
        given = self.document.data.get("tasks") or []
        chosen = "num_tasks" in (self.document.data.get("architecture") or {})
        if num_tasks > 1 and (chosen or not given):
            path = ("architecture", "num_tasks") if chosen else ("model",)
            message = f"num_tasks = {num_tasks} is not allowed: [[tasks]] says how many there are"
            hint = "write a [[tasks]] with name and environment for each, and leave the key out"
            self.add(path, message, hint)
        names = [task.get("name") for task in given if isinstance(task, dict)]
        for index, name in enumerate(names):
            if name is not None and name in names[:index]:
                self.add(("tasks", index, "name"), f"a second task is called {name!r}")

    def configuration(
        self, section: str, build: Callable[[Mapping[str, Any]], ConfigT]
    ) -> ConfigT | None:
        """Build the configuration of a section, leaving out one wrong field after another."""
        table = self.document.data.get(section, {})
        if not isinstance(table, dict):
            return None  # reported by the check of the sections
        known = known_keys(self.document)[section]
        given = {}
        for name, value in table.items():
            if name not in known:
                self.problems.append(_unknown(self.document, section, name, value))
            elif not any(bad[:2] == (section, name) for bad in self.unusable):
                given[name] = value
        while True:
            try:
                return build(given)
            except ConfigurationError as error:
                blamed = next((name for name in error.fields if name in given), None)
                if blamed is None and self.problems:
                    return None  # it may be about a value that was left out
                self.problems.append(_refused(self.document, section, given, error))
                if blamed is None:
                    return None
                del given[blamed]


def _build_training(given: Mapping[str, Any]) -> TrainingConfig:
    config = TrainingConfig(**given)
    known = (NATIVE, *BACKENDS)
    if config.backend not in known:
        config.refuse(
            "backend", f"one of {', '.join(known)}", hint=did_you_mean(config.backend, known)
        )
    return config


def _explain(document: Document, path: KeyPath, error: dict[str, Any]) -> Problem:
    """One of pydantic's errors in our words, at its place in the file."""
    name = str(path[-1])
    if error["type"] == "missing":
        return document.problem((), f"{name!r} is missing", hint=_REQUIRED_HINTS.get(name))
    if error["type"] == "unexpected_keyword_argument":
        if path[:2] == PARAMETERS:
            return unknown_in_swept(document, path)
        section = str(path[0]) if len(path) > 1 else None
        return _unknown(document, section, name, error["input"], path)
    expected, hint = expected_at(path, error)
    message = f"{'.'.join(map(str, path))} = {shown(error['input'])} is not allowed: "
    hint = quoting_hint(error["input"], expected, path) or hint
    return document.problem(path, f"{message}expected {expected}", hint=hint, value=True)


def _unknown(
    document: Document, section: str | None, name: str, value: Any, at: KeyPath | None = None
) -> Problem:
    known, config_class = known_keys(document), _config_class(document)
    path = at or ((section, name) if section else (name,))
    if section == "architecture" and config_class and name in config_class.UNREAD:
        message = f"{name!r} has no effect on this model"
        return document.problem(path, message, hint="delete the key")
    here = known[section] if section else list(field_types(ProjectSections))
    other = next((other for other, keys in known.items() if name in keys), None)
    kind = "section" if isinstance(value, dict) and section is None else "key"
    place = f" in [{section}]" if section else ""
    hint = alpha.key_change(tuple(map(str, path))) or unknown_key_hint(name, here, section, other)
    return document.problem(path, f"unknown {kind} {name!r}{place}", hint=hint)


def _refused(
    document: Document, section: str, given: Mapping[str, Any], error: ConfigurationError
) -> Problem:
    """What a configuration refused, at the first given field that it is about."""
    text = _CLASS.sub("", error.message)
    text = text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "..."
    blamed = next((name for name in error.fields if name in given), None)
    path = (section, blamed) if blamed else ("model" if section == "architecture" else section,)
    hint = quoting_hint(given.get(blamed or ""), text, path) or error.hint
    return document.problem(path, text, hint=hint, value=True)


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Problems in the order of the file: by line and column, then the ones without a place."""

    def place(problem: Problem) -> tuple[int, int]:
        _, *numbers = problem.where.rsplit(":", 2)
        if len(numbers) == 2 and all(number.isdigit() for number in numbers):
            return int(numbers[0]), int(numbers[1])
        return 1 << 30, 0

    return sorted(problems, key=place)
