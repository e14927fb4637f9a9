"""`worldflux init`: ask (on a terminal) or take flags, then write a new project."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from worldflux.errors import ConfigurationError

from .completion import DEVICES, environment_names, model_names, one_of

if TYPE_CHECKING:
    from worldflux.project.answers import Answers
    from worldflux.project.placement import Placement


def init(
    path: Annotated[
        str | None,
        typer.Argument(help="Folder of the project. Default: its name.", show_default=False),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Project name. Default: the folder's.", show_default=False)
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(
            help="classic, mujoco, atari, dmc, or a Gymnasium id such as CartPole-v1.",
            show_default="classic",
            autocompletion=environment_names,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A preset of `worldflux models list`. Default: one that fits.",
            autocompletion=model_names,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Gradient updates of the training.", show_default=False)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Sequences in a batch.", show_default=False)
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="auto, cpu, cuda, cuda:N or mps.",
            show_default="auto",
            autocompletion=one_of(*DEVICES),
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing, take defaults.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, write nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace generated files that exist, and only those.")
    ] = False,
) -> None:
    """Create a project: a worldflux.toml and thin scripts around the library.

    On a terminal it asks for what the flags leave open. It uses no network.
    """
    from worldflux.project.answers import DEFAULT_NAME, complete
    from worldflux.project.names import check_folder, check_name
    from worldflux.project.placement import examine, write
    from worldflux.project.scaffold import render

    if path is None and name is None and not _may_ask(yes):
        name = DEFAULT_NAME
    if name is not None:
        check_name(name)
    root = check_folder(path) if path is not None else None
    name = name or (check_name(root.name) if root is not None else None)
    if _may_ask(yes):
        from worldflux.cli.wizard import ask

        answers = ask(name, env, model, steps, batch_size, device)
    else:
        answers = complete(name or DEFAULT_NAME, env, model, steps, batch_size, device)
    placement = examine(root or check_folder(answers.name), render(answers))
    _refuse_obstacles(placement, force)
    _list(placement, dry_run)
    if not dry_run:
        write(placement)
        _next_steps(answers, placement)


def _may_ask(yes: bool) -> bool:
    return not yes and sys.stdin.isatty() and sys.stdout.isatty()


def _refuse_obstacles(placement: Placement, force: bool) -> None:
    """Stop before anything is written where files are in the way."""
    if placement.blocked:
        raise ConfigurationError(
            "the folder cannot take the project: " + "; ".join(placement.blocked),
            where=str(placement.root),
            hint="move it out of the way, or choose another folder",
        )
    if placement.existing and not force:
        raise ConfigurationError(
            "files of this name exist already: " + ", ".join(placement.existing),
            where=str(placement.root),
            hint="choose another folder, or --force to replace these files and no others",
        )


def _list(placement: Placement, dry_run: bool) -> None:
    """Say on stderr which files are replaced, and on a dry run which would be made."""
    for name in placement.existing:
        typer.echo(f"replace {name}", err=not dry_run)
    if dry_run:
        for name in placement.new:
            typer.echo(f"create  {name}")
        typer.echo(f"nothing was written to {placement.root}")


def _next_steps(answers: Answers, placement: Placement) -> None:
    from worldflux.project.document import shown_path

    folder = shown_path(placement.root)
    typer.echo(f"created {answers.name}: {answers.environment} with {answers.model}")
    needed = answers.needed_extra
    if needed is not None and needed.module and importlib.util.find_spec(needed.module) is None:
        typer.echo(f"    pip install 'worldflux[{needed.extra}]'")
    if folder != ".":
        typer.echo(f"    cd {folder}")
    typer.echo("    worldflux train")
