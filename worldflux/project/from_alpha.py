"""A project of the alpha (0.1.x) as `init` writes it today, with the settings that it had."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from worldflux.alpha import ALPHA, PROJECT_KEYS, project_changes
from worldflux.envs.namespaces import ATARI, namespace_of
from worldflux.errors import ConfigurationError
from worldflux.optional import install_command, is_installed

from .answers import DEFAULT_NAME, Answers, complete, environment_id
from .document import FILE_NAME, Document, override_label, parsed, read_document
from .edit import with_value
from .loader import load_project
from .placement import name_from
from .problems import ProjectFileError
from .scaffold import render, to_toml
from .template_record import record_of
from .update import Update, replacement

IGNORED = ".gitignore"  # the alpha wrote none: one that is there is the user's own
# In place of "custom", which names none; no numbers are tuned for it.
_STAND_IN = "MountainCarContinuous-v0"


def plan_from_alpha(root: Path) -> Update:
    """What `worldflux update --from-alpha` would do to the project in `root`; writes nothing.

    Raises:
        ConfigurationError: it is no project of the alpha, or its environment has no such id.
    """
    document = read_document(root)
    if not project_changes(document.data):
        where = document.where(())[0]
        raise ConfigurationError(f"{ALPHA} did not write this file", where=where)
    notes: list[str] = []
    answers = _answers(document, notes)
    settings = _settings(document.data, answers, notes)
    if extras := _missing_extras(settings, answers):
        notes.append(install_command(extras))
    files = render(answers)
    if own := (root / IGNORED).exists():
        del files[IGNORED]
    record = record_of(answers, files, None)
    today = parsed(root / FILE_NAME, files[FILE_NAME])
    for key, value in _accepted(settings, today, notes).items():
        today = with_value(today, key, to_toml(value))
    planned = replacement(root, {**files, FILE_NAME: today.text}, record)
    return replace(planned, kept=(IGNORED,) if own else (), notes=tuple(notes))


def _answers(document: Document, notes: list[str]) -> Answers:
    data = document.data
    section = data.get("data")
    named = (section.get("gym_env") if isinstance(section, dict) else None) or data.get(
        "environment", "custom"
    )
    if named == "custom":
        environment = _STAND_IN
        notes.append(
            f"{environment} stands in for your own environment: write its Gymnasium id as "
            f"environment in {FILE_NAME}, or return it from make_env in dataset.py"
        )
    else:
        environment = environment_id(str(named))
    training = data.get("training")
    steps = training.get("total_steps") if isinstance(training, dict) else None
    steps = steps if type(steps) is int and steps > 0 else None
    name = name_from(str(data.get("project_name", "")), DEFAULT_NAME)
    try:
        return complete(name, environment, str(data.get("model")), steps)
    except ConfigurationError as error:
        answers = complete(name, environment, None, steps)
        notes.append(f"model = {answers.model!r} instead of {data.get('model')!r}: {error.message}")
        return answers


def _settings(
    data: dict[str, Any], answers: Answers, notes: list[str]
) -> dict[tuple[str, ...], Any]:
    """The alpha's settings that have a home, by their keys of today."""
    found: dict[tuple[str, ...], Any] = {}
    # It counted agent steps; Gymnasium counts the frames of a game.
    repeat = ATARI.action_repeat if namespace_of(answers.environment) is ATARI else 1
    for section, table in data.items():
        for key, value in table.items() if isinstance(table, dict) else ():
            match section, key:
                case "online_collection", "max_episode_steps" if isinstance(value, int):
                    found["environment_kwargs", key] = value * repeat
                case "inference", "checkpoint":
                    found[section, key] = "best" if "best" in str(value) else "last"
                case _ if section in PROJECT_KEYS or f"{section}.{key}" in PROJECT_KEYS:
                    continue
                case _ if isinstance(value, dict):
                    notes.append(f"{section}.{key} was left out: it is a section")
                case _:
                    found[section, key] = value
    return found


def _missing_extras(settings: dict[tuple[str, ...], Any], answers: Answers) -> str:
    needed = [(row.extra, row.module)] if (row := answers.needed_extra) else []
    if settings.get(("visualization", "enabled")) is True:
        needed.append(("dashboard", "starlette"))
    return ",".join(str(extra) for extra, module in needed if not is_installed(module))


def _accepted(
    settings: dict[tuple[str, ...], Any], today: Document, notes: list[str]
) -> dict[tuple[str, ...], Any]:
    """The settings that today's checks accept over a project file; the others become notes."""
    while True:
        given = {f"{'.'.join(key)}={to_toml(value)}": key for key, value in settings.items()}
        labels = {override_label(text): key for text, key in given.items()}
        try:
            load_project(today, list(given), environ={})
            return settings
        except ProjectFileError as error:
            refused = {labels[p.where]: p.message for p in error.problems if p.where in labels}
            if not refused:
                raise
            notes += [f"{'.'.join(key)} was left out: {why}" for key, why in refused.items()]
            settings = {key: value for key, value in settings.items() if key not in refused}
