"""`worldflux report`: one HTML page about a run, or about several seeds, for other people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .completion import one_of


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders or projects. Default: the run of this folder."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    mode: Annotated[
        str,
        typer.Option(
            help="auto (proof for several runs, else quick), quick or proof.",
            autocompletion=one_of("auto", "quick", "proof"),
        ),
    ] = "auto",
) -> None:
    """Verify runs and write one HTML page: verdict, plots, versions, commands, numbers.

    The page loads nothing, prints on A4, and is written whatever the verdict is.
    """
    from worldflux.progress import on_screen
    from worldflux.project.places import run_folder

    from .verify import inputs_for, report_on

    named = tuple(run_folder(place) for place in runs) if runs else (run_folder(),)
    with on_screen("opening the run") as screen:
        from worldflux.verify.evidence import judge

        inputs = inputs_for(named, mode)
        verdict = judge(inputs, screen)
        report_on(out, inputs, verdict)
    typer.echo(f"verdict: {verdict.word.upper()}", err=True)
    typer.echo(str(out))
