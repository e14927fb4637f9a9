"""`worldflux update`: what init would write today, merged into a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from worldflux.project.update import Update

CONFLICTS, BEHIND = 3, 1  # exit codes


def update(
    project: Annotated[
        Path | None,
        typer.Argument(help="Project folder. Default: this one or the nearest above it."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 1 if there is an update.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the changes, write nothing.")
    ] = False,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Take today's files where nothing is known of the old ones; edited ones are kept "
            "as NAME.bak.",
        ),
    ] = False,
    from_alpha: Annotated[
        bool,
        typer.Option(
            "--from-alpha",
            help="Rewrite a project of the alpha (0.1.x) with its settings; its files are kept as "
            "NAME.bak.",
        ),
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(help="Folder or package of the templates, if it has moved."),
    ] = None,
) -> None:
    """Merge what `worldflux init` would write today into a project; your changes stay.

    Exit code 3: both sides changed the same lines, which are marked and named.
    """
    from worldflux.project.from_alpha import plan_from_alpha
    from worldflux.project.places import project_file
    from worldflux.project.update import apply_update, plan_update

    root = project_file(project).parent
    planned = plan_from_alpha(root) if from_alpha else plan_update(root, template)
    accept = accept or from_alpha
    if check:
        _summary(planned)
        raise typer.Exit(BEHIND if planned.changes or planned.unresolved else 0)
    if dry_run or not (planned.recorded or accept):
        _diff(planned)
    if dry_run:
        return
    if not planned.recorded and not accept:
        typer.echo(
            "nothing was written: it is not known what init wrote here, so nothing can be merged\n"
            "hint: worldflux update --accept takes these files and keeps copies of yours",
            err=True,
        )
        raise typer.Exit(BEHIND if planned.changes else 0)
    copies = apply_update(planned)
    _summary(planned)
    for name, copy in copies.items():
        typer.echo(f"replaced {name}; the old one is {copy}", err=True)
    if planned.conflicts or planned.unresolved:
        hint = "keep what you want of each part between <<<<<<< and >>>>>>>, delete the markers"
        typer.echo(f"hint: {hint}", err=True)
        raise typer.Exit(CONFLICTS)


def _summary(planned: Update) -> None:
    """One line a file."""
    from worldflux import __version__

    for name in planned.unresolved:
        typer.echo(f"conflict {name}: markers of an earlier update are left")
    if not (planned.changes or planned.unresolved):
        typer.echo(f"up to date with worldflux {__version__}")
    elif planned.since:
        typer.echo(f"worldflux {planned.since} -> {__version__}")
    for change in planned.changes:
        if change.conflicts:
            lines = ", ".join(map(str, change.conflicts))
            typer.echo(f"conflict {change.name}: line {lines}")
        elif change.problem:
            typer.echo(f"conflict {change.name}: it no longer loads\n{change.problem}")
        else:
            typer.echo(f"{'new' if change.before is None else 'updated':<8} {change.name}")
    for name in planned.kept:
        typer.echo(f"kept     {name}: your own, not from init")
    for name in planned.dropped:
        typer.echo(f"kept     {name}: init no longer writes it")
    for note in planned.notes:
        typer.echo(f"note     {note}")


def _diff(planned: Update) -> None:
    for change in planned.changes:
        for line in change.diff():
            typer.echo(line)
    _summary(planned)
