"""`worldflux config`: what a project's settings are, where they come from, and setting one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .completion import settings

config = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
Project = Annotated[
    Path | None,
    typer.Option(help="Project folder. Default: this one or the nearest above it."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="One setting, over the file's.",
        autocompletion=settings,
    ),
]


@config.callback()
def about() -> None:
    """Show the settings of a project and where they come from, or set one."""


@config.command()
def show(
    project: Project = None,
    origin: Annotated[
        bool, typer.Option("--origin", help="Add where each value comes from.")
    ] = False,
    set_: Overrides = None,
) -> None:
    """Print every setting that `worldflux train` would use.

    The output is a worldflux.toml. Fields of the model that the environment decides are left out.
    """
    from worldflux.project.edit import dotted
    from worldflux.project.effective import effective_settings
    from worldflux.project.loader import load_project
    from worldflux.project.places import project_file
    from worldflux.project.scaffold import to_toml

    section: tuple[str | int, ...] = ()
    for setting in effective_settings(load_project(project_file(project), set_ or [])):
        is_task = setting.path[0] == "tasks"  # an array of tables
        table = setting.path[:-1][: 2 if is_task else 1]
        if table and table != section:
            section = table
            typer.echo("\n[[tasks]]" if is_task else f"\n[{table[0]}]")
        key = dotted(setting.path[len(table) :])
        if setting.value is None:
            typer.echo(f"# {key} is not set")
            continue
        line = f"{key} = {to_toml(setting.value)}"
        typer.echo(f"{line:<45}  # {setting.origin}" if origin else line)


@config.command("set", context_settings={"ignore_unknown_options": True})  # -9.81 is a value
def set_value(
    key: Annotated[
        str, typer.Argument(help="SECTION.KEY, such as training.seed.", autocompletion=settings)
    ],
    value: Annotated[str, typer.Argument(help="As TOML; other text is taken as a string.")],
    project: Project = None,
) -> None:
    """Set one key in worldflux.toml.

    The file is checked before it is written; comments and formatting stay.
    """
    from worldflux.project.edit import set_key
    from worldflux.project.places import project_file

    changed = set_key(project_file(project), key, value)
    typer.echo(f"{changed}: {key} = {value}")
