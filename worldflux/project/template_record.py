"""What `init` wrote: its answers and the rendered files, kept in `.worldflux/` for updates.

An update replaces several files, and may be interrupted between any two of them. What it is about
to write is therefore complete in `.worldflux/update` first. Moving a file from there to its place
also records that its base has moved on: a file that is still there counts as not updated.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path

from worldflux import __version__
from worldflux.files import sync_file, write_text

from .answers import Answers
from .placement import OURS
from .recorded_answers import TEMPLATE, VERSION
from .scaffold import own_templates, to_toml

ANSWERS_FILE = OURS + "answers.toml"
BASE = OURS + "base/"
_JOURNAL = OURS + "update"
_NOTE = "# The answers to worldflux init. worldflux update renders the templates with them again."


def record_of(answers: Answers, files: Mapping[str, str], template: str | None) -> dict[str, str]:
    """The files of the record, by path inside the project.

    Args:
        files: what was rendered.
        template: the folder or package of the templates, if they are not ours.
    """
    if template and (folder := own_templates(template)) == Path(template).expanduser().resolve():
        template = str(folder)
    given = {VERSION: __version__, TEMPLATE: template, **asdict(answers)}
    lines = [f"{key} = {to_toml(value)}" for key, value in given.items() if value is not None]
    base = {BASE + name: text for name, text in files.items() if not name.startswith(OURS)}
    return {ANSWERS_FILE: "\n".join([_NOTE, *lines, ""]), **base}


def recorded_base(root: Path) -> dict[str, str]:
    """The files as they were rendered for the project, the latest of each."""
    base = _texts(root / BASE)
    waiting = _texts(root / _JOURNAL / "files")
    moved = {n: text for n, text in _texts(root / _JOURNAL / BASE).items() if n not in waiting}
    return base | moved


def replace_files(root: Path, files: Mapping[str, str], record: Mapping[str, str]) -> None:
    """Write files of a project and their record; killed at any moment, each is old or new.

    Raises:
        StorageError: the disk is full or refuses to write; nothing was replaced.
    """
    settle(root)
    known = _texts(root / OURS)
    record = {name: text for name, text in record.items() if known.get(name[len(OURS) :]) != text}
    if not files and not record:
        return
    journal, partial = root / _JOURNAL, root / f"{_JOURNAL}.tmp"
    shutil.rmtree(partial, ignore_errors=True)
    for name, text in {**{f"files/{n}": t for n, t in files.items()}, **record}.items():
        (partial / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(partial / name, text)
    for name in files:
        if (root / name).exists():
            shutil.copymode(root / name, partial / "files" / name)
    partial.rename(journal)
    sync_file(journal.parent)
    for name in files:
        _move(journal / "files" / name, root / name)
    settle(root)


def settle(root: Path) -> None:
    """Bring the record up to date with the files that an update has replaced."""
    journal = root / _JOURNAL
    waiting = _texts(journal / "files")
    if waiting:
        (journal / ANSWERS_FILE).unlink(missing_ok=True)  # they are the last to arrive
    for name in waiting:  # in this order: a base without its file would count as moved on
        (journal / BASE / name).unlink(missing_ok=True)
        (journal / "files" / name).unlink()
    for name in _texts(journal / BASE):
        _move(journal / BASE / name, root / BASE / name)
    if (journal / ANSWERS_FILE).is_file():
        _move(journal / ANSWERS_FILE, root / ANSWERS_FILE)
    shutil.rmtree(journal, ignore_errors=True)


def forget(root: Path, names: Collection[str]) -> None:
    """Drop files from the base that the templates no longer write."""
    for name in names:
        (root / BASE / name).unlink(missing_ok=True)


def _move(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(source, target)
    sync_file(target.parent)


def _texts(folder: Path) -> dict[str, str]:
    """The text files below a folder by their path in it; none where there is no folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_text("utf-8", "replace") for p in files}
