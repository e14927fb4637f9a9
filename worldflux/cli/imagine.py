"""`worldflux imagine`: what the model expects, beside what happened."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .completion import checkpoint_names


def imagine(
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of the run or project. Default: this project's run."),
    ] = None,
    target: Annotated[Path | None, typer.Option(help="The same.")] = None,
    horizon: Annotated[int, typer.Option(min=1, help="Steps that the model imagines.")] = 15,
    out: Annotated[
        Path | None, typer.Option(help="The picture, a .png; its video goes beside it.")
    ] = None,
    checkpoint: Annotated[
        str,
        typer.Option(
            help='"best", "last", an update such as 3000, or a folder.',
            autocompletion=checkpoint_names,
        ),
    ] = "best",
    episodes: Annotated[int, typer.Option(min=1, help="Fresh episodes to predict.")] = 16,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Predict fresh episodes open loop; write a picture, a video and the error by horizon."""
    from worldflux.files import finite
    from worldflux.progress import on_screen
    from worldflux.project.places import run_folder

    folder = run_folder(run or target)
    with on_screen("opening the run") as screen:
        from worldflux.project.imagine import imagine_run

        report = imagine_run(
            folder,
            horizon=horizon,
            out=out,
            checkpoint=checkpoint,
            episodes=episodes,
            progress=screen,
        )
    typer.echo(json.dumps(finite(report.to_dict()), indent=2) if as_json else str(report))
