"""`worldflux eval`: let the trained agent act."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    target: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("outputs"),
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 20,
    checkpoint: Annotated[
        str, typer.Option(help='"best", "last", or a checkpoint folder.')
    ] = "best",
    video: Annotated[
        bool, typer.Option("--video/--no-video", help="Record the first episode.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Play fresh episodes of the agent beside a random policy; write a video and the curve."""
    from worldflux.files import finite
    from worldflux.project.evaluate import evaluate_run

    report = evaluate_run(target, episodes=episodes, checkpoint=checkpoint, video=video)
    typer.echo(json.dumps(finite(vars(report)), indent=2) if as_json else str(report))
