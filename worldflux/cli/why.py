"""`worldflux why`: the likely causes of a run that does not learn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

CAUSE_FOUND = 3


def why(
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of the run or project. Default: this project's run."),
    ] = None,
    target: Annotated[Path | None, typer.Option(help="The same.")] = None,
    no_play: Annotated[
        bool, typer.Option("--no-play", help="Read the folder alone; play no episode.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say why a run does not learn, the likeliest cause first; exit code 3 when there is one."""
    from worldflux.files import finite
    from worldflux.progress import on_screen
    from worldflux.project.places import one_place, run_folder

    folder = run_folder(one_place(run, target, "--target"))
    with on_screen("opening the run") as screen:
        from worldflux.project.diagnose import why_run

        found = why_run(folder, play=not no_play, published=_published_steps, progress=screen)
    typer.echo(json.dumps(finite(found.to_dict()), indent=2) if as_json else str(found))
    if found.verdict == "causes found":
        raise typer.Exit(CAUSE_FOUND)


def _published_steps(manifest: Mapping[str, Any]) -> float | None:
    """Environment steps by which a published curve of the run's task is near its end."""
    from worldflux.verify.curves import steps_to_learn

    environment = manifest.get("environment") or {}
    frames = steps_to_learn(str(environment.get("id")), str(manifest.get("model")))
    return frames and frames / float(environment.get("frames_per_env_step") or 1)
