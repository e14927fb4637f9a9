"""`worldflux data`: what recorded data holds."""

from __future__ import annotations

import json
from typing import Annotated

import typer

data = typer.Typer(
    help="Recorded data to learn from.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)


@data.callback()
def _data() -> None:
    """Recorded data to learn from."""


@data.command("info")
def info(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A project, an .npz, .hdf5 or .h5 file, or the id of a Minari data set. "
            "Default: this project."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what is in recorded data; every value is read and checked."""
    from worldflux.files import finite
    from worldflux.project.data_report import report_on
    from worldflux.project.places import project_file

    report = report_on(target or str(project_file()))
    typer.echo(json.dumps(finite(report.to_dict()), indent=2) if as_json else str(report))
