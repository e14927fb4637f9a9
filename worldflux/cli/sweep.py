"""`worldflux sweep`: search settings with Optuna, each trial an ordinary run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .config import Overrides


def sweep(
    project: Annotated[
        Path | None,
        typer.Argument(help="Project folder. Default: this one or the nearest above it."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(help="Runs of the whole study (sweep.trials).")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at the same time; they share the cores.")
    ] = 1,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder of the trials (training.output_dir).")
    ] = None,
    set_: Overrides = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")] = False,
) -> None:
    """Search the ranges of [sweep] for the largest return.

    Every trial is a run in OUTPUT_DIR/trial-N. The same command continues a study that was
    interrupted, or joins one that others work on.
    """
    from worldflux.optional import require
    from worldflux.project.places import project_file
    from worldflux.project.schema import renew_schema

    require("worldflux sweep", "sweep", "optuna")
    flags = {"sweep.trials": trials, "training.output_dir": output_dir and output_dir.absolute()}
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    file = project_file(project)
    renew_schema(file.parent)

    from worldflux.progress import lasting_output, on_screen

    with lasting_output(), on_screen("starting", quiet=quiet) as screen:
        from worldflux.runs.sweep import sweep as work

        folder, code = work(file, overrides=[*(set_ or []), *given], jobs=jobs, screen=screen)
    if not code:
        typer.echo(str(folder))
    raise typer.Exit(code)
