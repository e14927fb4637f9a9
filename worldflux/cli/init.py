"""`worldflux init`: ask (on a terminal) or take flags, then write a new project."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worldflux.envs.namespaces import CHOICES
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
            help=f"{', '.join(CHOICES)}, or a Gymnasium id such as CartPole-v1. "
            f"Default: {next(iter(CHOICES))}.",
            show_default=False,
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
            help="auto (default), cpu, cuda, cuda:N or mps.",
            show_default=False,
            autocompletion=one_of(*DEVICES),
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing, take defaults.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it, write nothing.")] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace generated files that exist; edited ones are kept as NAME.bak."
        ),
    ] = False,
) -> None:
    """Create a project: a worldflux.toml and thin scripts around the library.

    On a terminal it asks for what the flags leave open. It uses no network.
    """
    from worldflux.project.answers import DEFAULT_NAME, complete
    from worldflux.project.names import check_folder, check_name, name_from
    from worldflux.project.placement import examine, write
    from worldflux.project.scaffold import FILES, render

    def refuse_taken(name: str) -> None:
        folder = root or check_folder(check_name(name))
        _refuse_obstacles(examine(folder, dict.fromkeys(FILES, ""), replace=force), force)

    root = None if path is None else check_folder(path)
    if name is None and (root is not None or not _may_ask(yes)):
        name = DEFAULT_NAME if root is None else name_from(root.name, DEFAULT_NAME)
    if name is not None:
        refuse_taken(name)
    if _may_ask(yes):
        from worldflux.cli.wizard import ask

        answers = ask(name, env, model, steps, batch_size, device, refuse_taken)
    else:
        answers = complete(name or DEFAULT_NAME, env, model, steps, batch_size, device)
    placement = examine(root or check_folder(answers.name), render(answers), replace=force)
    _refuse_obstacles(placement, force)
    _check_environment(answers, placement.root)
    if dry_run:
        _list(placement)
        return
    for replaced, copy in write(placement).items():
        typer.echo(f"replaced {replaced}; the old one is {copy}", err=True)
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
            hint="choose another folder, or --force to replace these files and keep copies",
        )


def _check_environment(answers: Answers, root: Path) -> None:
    """Say now what would stop `worldflux train`: an unknown id, a package that is not there."""
    from worldflux.project.answers import WELL_KNOWN

    if answers.environment in WELL_KNOWN or _missing_extra(answers) is not None:
        return
    from worldflux.project.environments import environment_problem

    problem = environment_problem(answers.environment, root)
    if problem is not None:
        typer.echo(f"warning: {problem.message}", err=True)
        if problem.hint:
            typer.echo(f"hint: {problem.hint}", err=True)


def _missing_extra(answers: Answers) -> str | None:
    needed = answers.needed_extra
    if needed is None or importlib.util.find_spec(needed.module) is not None:
        return None
    return needed.extra


def _list(placement: Placement) -> None:
    """On a dry run: what would be done."""
    for word, names in (
        ("replace", placement.existing),
        ("keep   ", placement.kept),
        ("create ", placement.new),
    ):
        for name in names:
            typer.echo(f"{word} {name}")
    typer.echo(f"nothing was written to {placement.root}")


def _next_steps(answers: Answers, placement: Placement) -> None:
    from worldflux.project.document import shown_path

    folder = shown_path(placement.root)
    typer.echo(f"created {answers.name}: {answers.environment} with {answers.model}")
    if placement.kept:
        own = " (add outputs/ to it)" if ".gitignore" in placement.kept else ""
        typer.echo(f"    your {' and '.join(placement.kept)} stayed{own}")
    extra = _missing_extra(answers)
    if extra is not None:
        typer.echo(f"    pip install 'worldflux[{extra}]'")
    if folder != ".":
        typer.echo(f"    cd {shlex.quote(folder)}")
    typer.echo("    worldflux train")
