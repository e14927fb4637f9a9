"""What `init` would write today, merged into a project; the user's own changes stay."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from worldflux.errors import ConfigurationError

from .answers import Answers, complete
from .document import FILE_NAME, has_crlf, parsed, shown_path
from .loader import load_project
from .merge import is_unresolved, merge
from .placement import OURS, copied, obstacle
from .recorded_answers import TEMPLATE, VERSION, completed, read_answers
from .scaffold import own_templates, render
from .template_record import ANSWERS_FILE, forget, record_of, recorded_base, replace_files


@dataclass(frozen=True)
class Change:
    """A file that an update writes.

    Attributes:
        before: its text; None for a new one.
        conflicts: the lines at which conflict markers begin.
        problem: why the merged worldflux.toml does not load, although the user's does.
    """

    name: str
    before: str | None
    after: str
    conflicts: tuple[int, ...] = ()
    problem: str | None = None

    def diff(self) -> Iterator[str]:
        """The lines of a unified diff, without their newlines."""
        old, new = (self.before or "").splitlines(), self.after.splitlines()
        source = "/dev/null" if self.before is None else f"a/{self.name}"
        yield from difflib.unified_diff(old, new, source, f"b/{self.name}", lineterm="")


@dataclass(frozen=True)
class Update:
    """What an update of a project would do.

    Attributes:
        recorded: whether the base is known. If not, `changes` replaces what differs.
        since: the version of worldflux that wrote the base.
        unresolved: files in which conflict markers of an earlier update are left.
        kept: files of the user's own, whose names the templates use too.
        dropped: files that the templates no longer write; they stay.
        notes: what is left for the user to do.
    """

    root: Path
    record: dict[str, str]
    changes: tuple[Change, ...]
    recorded: bool = True
    since: str | None = None
    unresolved: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def conflicts(self) -> list[Change]:
        return [change for change in self.changes if change.conflicts or change.problem]


def plan_update(root: Path, template: str | None = None) -> Update:
    """What `worldflux update` would do to the project in `root`; writes nothing.

    Args:
        template: where the templates are now, if they are not ours and have moved.

    Raises:
        ConfigurationError: there is no project, or a file of it cannot be updated.
    """
    base = recorded_base(root)
    if not base or not (root / ANSWERS_FILE).is_file():
        return _replacement(root, template)
    given = read_answers(root / ANSWERS_FILE)
    template = template or given.get(TEMPLATE)
    answers = completed(given)
    files = render(answers, own_templates(template) if template else None)
    changes, kept, unresolved = [], [], []
    for name, theirs in files.items():
        ours = _text_of(root, name)
        if ours is not None and is_unresolved(ours):
            unresolved.append(name)
        if name.startswith(OURS):
            change = Change(name, ours, theirs)
        elif ours is None and name in base:
            continue  # deleted by the user
        elif ours is None:
            change = Change(name, None, theirs)
        elif name not in base:
            kept += [name] if ours != theirs else []
            continue
        else:
            change = _merged(name, base[name], ours, theirs)
        if change.after != change.before:
            changes.append(change)
    if stuck := [change.name for change in changes if change.name in unresolved]:
        raise ConfigurationError(
            "conflict markers of an earlier update are left in " + ", ".join(stuck),
            where=shown_path(root),
            hint="keep what you want of each marked part and delete the markers",
        )
    rendered = {name: text for name, text in files.items() if name not in kept}
    return Update(
        root,
        record_of(answers, rendered, template),
        tuple(changes),
        since=given.get(VERSION),
        unresolved=tuple(unresolved),
        kept=tuple(kept),
        dropped=tuple(name for name in base if name not in files),
    )


def apply_update(update: Update) -> dict[str, str]:
    """Carry out a planned update; returns the copy kept of each file that had no base."""
    root, copies = update.root, {}
    if not update.recorded:
        edited = [change.name for change in update.changes if change.before is not None]
        copies = {n: copied(root / n) for n in edited if not n.startswith(OURS)}
    files = {change.name: change.after for change in update.changes}
    replace_files(root, files, update.record)
    forget(root, update.dropped)
    return copies


def _merged(name: str, base: str, ours: str, theirs: str) -> Change:
    """Merged with the newlines that the user's file has."""
    crlf = has_crlf(ours)
    mine = ours.replace("\r\n", "\n") if crlf else ours
    text, conflicts = merge(base, mine, theirs)
    both = mine not in (base, text) and not conflicts
    problem = _new_problem(mine, text) if both and name == FILE_NAME else None
    text = text.replace("\n", "\r\n") if crlf else text
    return Change(name, ours, text, tuple(conflicts), problem)


def _new_problem(before: str, after: str) -> str | None:
    """What keeps a merged worldflux.toml from loading, such as a section that is there twice."""
    problems = []
    for text in (before, after):
        try:
            load_project(parsed(Path(FILE_NAME), text), environ={})
        except ConfigurationError as error:
            problems.append(str(error))
        else:
            problems.append("")
    return problems[1] if not problems[0] else None


def _replacement(root: Path, template: str | None) -> Update:
    """Today's files for a project whose base is unknown, by the answers that its file implies."""
    answers = _implied_answers(root)
    files = render(answers, own_templates(template) if template else None)
    return replacement(root, files, record_of(answers, files, template))


def replacement(root: Path, files: Mapping[str, str], record: dict[str, str]) -> Update:
    """The update that puts `files` in place of those that are there."""
    pairs = [(name, _text_of(root, name), text) for name, text in files.items()]
    changes = tuple(Change(name, ours, text) for name, ours, text in pairs if ours != text)
    return Update(root, record, changes, recorded=False)


def _implied_answers(root: Path) -> Answers:
    project = load_project(root)
    sections, training = project.sections, project.sections.training
    return complete(
        sections.project_name,
        sections.environment,
        sections.model,
        training.get("total_steps"),
        training.get("batch_size"),
        training.get("device"),
    )


def _text_of(root: Path, name: str) -> str | None:
    """The text of a project's file, None where there is none."""
    if reason := obstacle(root, name):
        raise ConfigurationError(f"cannot be updated: {reason}", where=shown_path(root))
    try:
        return (root / name).read_bytes().decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        raise ConfigurationError("not UTF-8 text", where=shown_path(root / name)) from None
