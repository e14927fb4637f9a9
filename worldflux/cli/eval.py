"""`worldflux eval` and `worldflux imagine`: a run's agent at work, and what its model expects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .completion import checkpoint_names

Run = Annotated[
    Path | None,
    typer.Argument(help="Folder of the run or project. Default: this project's run."),
]
Target = Annotated[Path | None, typer.Option(help="The same.")]
Checkpoint = Annotated[
    str,
    typer.Option(
        help='"best", "last", an update such as 3000, or a folder.',
        autocompletion=checkpoint_names,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def evaluate(
    run: Run = None,
    target: Target = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 20,
    checkpoint: Checkpoint = "best",
    video: Annotated[
        bool, typer.Option("--video/--no-video", help="Record the first episode.")
    ] = True,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Seed of the episodes. Default: one that the agent has not met."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    as_json: AsJson = False,
) -> None:
    """Play fresh episodes of the agent and of a random policy; write a video and the curve."""
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


def imagine(
    run: Run = None,
    target: Target = None,
    horizon: Annotated[int, typer.Option(min=1, help="Steps that the model imagines.")] = 15,
    out: Annotated[
        Path | None, typer.Option(help="The picture, a .png; its video goes next to it.")
    ] = None,
    checkpoint: Checkpoint = "best",
    episodes: Annotated[int, typer.Option(min=1, help="Fresh episodes to predict.")] = 16,
    as_json: AsJson = False,
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
