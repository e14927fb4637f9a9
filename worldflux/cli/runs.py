"""`worldflux runs`: the runs below some folders: a table, comparisons, differences, one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from worldflux.errors import ConfigurationError

from .completion import one_of

runs = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)
Places = Annotated[
    list[Path] | None,
    typer.Argument(help="Runs or folders of runs. Default: outputs of this project."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@runs.callback()
def about() -> None:
    """List, compare and export the runs below folders."""


def _places(given: list[Path] | None) -> list[Path]:
    from worldflux.project.places import run_folder

    return given or [run_folder()]


@runs.command("list")
def list_(places: Places = None, as_json: AsJson = False) -> None:
    """Print a row for each run: status, seed, steps, best and last return, time."""
    from worldflux.runs.listing import row_of, runs_below, table

    rows = [row_of(folder) for folder in runs_below(_places(places))]
    typer.echo(json.dumps(rows, indent=2) if as_json else table(rows))


@runs.command()
def compare(
    places: Places = None,
    score: Annotated[
        str,
        typer.Option(
            help="last or best: the evaluation that counts.", autocompletion=one_of("last", "best")
        ),
    ] = "last",
    confidence: Annotated[float, typer.Option(help="Of the intervals.", min=0.5, max=0.999)] = 0.95,
    picture: Annotated[
        Path | None, typer.Option(help="Draw it: a .png, .svg or .pdf file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write it: a .json or .csv file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare groups of seeds.

    Each folder is a group; below a single folder, runs that differ only in their seed are one.
    Prints interquartile means with stratified bootstrap intervals, and probabilities of
    improvement.
    """
    if score not in ("last", "best"):
        raise ConfigurationError(f"--score is last or best, not {score!r}", where="--score")
    from worldflux.files import require_place

    if out is not None:
        require_place(out, "--out")
    if picture is not None:
        require_place(picture, "--picture", makes_folders=True)
        if picture.suffix not in (".png", ".svg", ".pdf"):
            raise ConfigurationError("a picture is a .png, .svg or .pdf file", where=str(picture))
    from worldflux.runs.comparison import compare_groups
    from worldflux.runs.listing import write_table

    alpha = round(1 - confidence, 6)
    found = compare_groups(_places(places), score=score, alpha=alpha)  # type: ignore[arg-type]
    if out is not None:
        write_table(out, found.rows())
    for text in found.warnings:
        typer.echo(f"warning: {text}", err=True)
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else str(found))
    if picture is not None:
        from worldflux.runs.picture import draw_comparison

        typer.echo(str(draw_comparison(found, picture)))


@runs.command()
def diff(
    places: Annotated[list[Path], typer.Argument(help="Runs, or folders of runs; two or more.")],
    as_json: AsJson = False,
) -> None:
    """Print the settings, versions and machines in which runs differ."""
    from worldflux.project.document import shown_path
    from worldflux.runs.listing import differing, runs_below

    folders = runs_below(places)
    if len(folders) < 2:
        raise ConfigurationError("there is one run here, and a difference takes two")
    found = differing(folders)
    if as_json:
        typer.echo(json.dumps({"runs": [shown_path(f) for f in folders], "differs": found}))
        return
    for number, folder in enumerate(folders, 1):
        typer.echo(f"{number}: {shown_path(folder)}")
    for name, values in found.items():
        shown = "  ".join(f"{n}: {'-' if v is None else v}" for n, v in enumerate(values, 1))
        typer.echo(f"{name}\n    {shown}")


@runs.command()
def export(
    out: Annotated[Path, typer.Option(help="The file to write: .csv or .json.")],
    places: Places = None,
) -> None:
    """Write every evaluation of every run to one file, a row each."""
    from worldflux.runs.listing import evaluations, runs_below, write_table

    write_table(out, list(evaluations(runs_below(_places(places)))))
    typer.echo(str(out))
