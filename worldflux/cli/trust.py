"""`worldflux trust`: how far a model's predictions hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .eval import AsJson, Checkpoint, Run, Seed, Target


def trust(
    run: Run = None,
    target: Target = None,
    episodes: Annotated[
        int, typer.Option(min=20, help="Fresh episodes to calibrate on; 100 or more are good.")
    ] = 100,
    horizon: Annotated[int, typer.Option(min=1, help="Steps ahead, at most.")] = 15,
    checkpoint: Checkpoint = "best",
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Measure on held-out episodes for how many steps predictions hold; saved with the checkpoint.

    Afterwards imagine, eval, verify, play and Agent.trust know how far to trust the model.
    """
    from worldflux.files import finite
    from worldflux.progress import on_screen
    from worldflux.project.places import one_place, run_folder

    folder: Path = run_folder(one_place(run, target, "--target"))
    with on_screen("opening the run") as screen:
        from worldflux.verify.trust import trust_run

        report = trust_run(
            folder,
            episodes=episodes,
            horizon=horizon,
            checkpoint=checkpoint,
            seed=seed,
            progress=screen,
        )
    typer.echo(json.dumps(finite(report.to_dict()), indent=2) if as_json else str(report))
