"""`worldflux eval`: let the trained agent act."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .completion import checkpoint_names


def evaluate(
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of the run or project. Default: this project's run."),
    ] = None,
    target: Annotated[Path | None, typer.Option(help="The same.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 20,
    checkpoint: Annotated[
        str,
        typer.Option(
            help='"best", "last", an update such as 3000, or a folder.',
            autocompletion=checkpoint_names,
        ),
    ] = "best",
    video: Annotated[
        bool, typer.Option("--video/--no-video", help="Record the first episode.")
    ] = True,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the episodes. Default: one that the agent has not met."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Play fresh episodes of the agent beside a random policy; write a video and the curve."""
    from worldflux.files import finite
    from worldflux.progress import on_screen
    from worldflux.project.places import run_folder

    folder = run_folder(run or target)
    with on_screen("opening the run") as screen:
        from worldflux.project.evaluate import evaluate_run

        report = evaluate_run(
            folder,
            episodes=episodes,
            checkpoint=checkpoint,
            video=video,
            seed=seed,
            device=device,
            progress=screen,
        )
    typer.echo(json.dumps(finite(vars(report)), indent=2) if as_json else str(report))
