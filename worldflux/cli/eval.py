"""`worldflux eval`, `play` and `imagine`: a run's agent at work, and what its model expects."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .completion import checkpoint_names, moment_names, one_of

if TYPE_CHECKING:
    from worldflux.project.open_run import OpenRun

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
Seed = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=2**32 - 1,
        help="Seed of the episodes. Default: one that the agent has not met.",
    ),
]
Policy = Annotated[
    str | None,
    typer.Option(
        help="plan, or prior: the learned policy alone. Default: the family's own.",
        autocompletion=one_of("plan", "prior"),
    ),
]
Model = Annotated[
    str | None,
    typer.Option(help="In place of a run: a saved model's folder, or hf://owner/name."),
]
Env = Annotated[
    str | None,
    typer.Option(help="Where --model plays. Default: the environment of this project."),
]
TaskNumber = Annotated[
    int | None,
    typer.Option("--task", min=0, help="Which task --model plays, if it learned several."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class Rendering(StrEnum):
    HUMAN = "human"


def _opened(
    run: Path | None,
    target: Path | None,
    model: str | None,
    env: str | None,
    task: int | None,
) -> Path | OpenRun:
    """The folder of the run that is meant, or the saved model, opened."""
    from worldflux.errors import ConfigurationError
    from worldflux.project.places import one_place, run_folder

    run = one_place(run, target, "--target")
    if model is None and env is None and task is None:
        return run_folder(run)
    if model is None or run is not None:
        message = "--model plays a saved model in the environment --env; a run has its own"
        raise ConfigurationError(message, hint="worldflux eval --model DIR --env Pendulum-v1")
    from worldflux.project.open_run import open_model

    return open_model(model, env, task)


def evaluate(
    run: Run = None,
    target: Target = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 20,
    checkpoint: Checkpoint = "best",
    video: Annotated[
        bool, typer.Option("--video/--no-video", help="Record the first episode.")
    ] = True,
    model: Model = None,
    env: Env = None,
    task: TaskNumber = None,
    seed: Seed = None,
    policy: Policy = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "cpu",
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the agent's episodes as a table.")
    ] = None,
    render: Annotated[
        Rendering | None, typer.Option(help="Watch the agent in a window, episode by episode.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Play fresh episodes of the agent and of a random policy; write a video and the curve."""
    from worldflux.files import finite, require_place
    from worldflux.progress import on_screen

    if csv is not None:
        require_place(csv, "--csv")
    with on_screen("opening the run") as screen:
        folder = _opened(run, target, model, env, task)
        from worldflux.evaluation.window import Window
        from worldflux.project.evaluate import evaluate_run, write_csv

        report = evaluate_run(
            folder,
            episodes=episodes,
            checkpoint=checkpoint,
            video=video,
            seed=seed,
            device=device,
            policy=policy,
            open_view=None if render is None else Window,
            progress=screen,
        )
    if csv is not None:
        write_csv(csv, report)
    typer.echo(json.dumps(finite(vars(report)), indent=2) if as_json else str(report))


def play(
    run: Run = None,
    target: Target = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 5,
    checkpoint: Checkpoint = "best",
    seed: Seed = None,
    policy: Policy = None,
    browser: Annotated[
        bool, typer.Option("--browser", help="On a local page, and not in a window.")
    ] = False,
) -> None:
    """Watch the agent in a window or on a local page; nothing is written."""
    from worldflux.project.places import one_place, run_folder

    folder = run_folder(one_place(run, target, "--target"))

    from worldflux.dashboard import frame_page
    from worldflux.evaluation.episodes import EvaluationStopped
    from worldflux.evaluation.window import Window
    from worldflux.project.play import View, play_run

    def open_page(title: str, fps: float) -> View:
        page = frame_page(title, fps)
        typer.echo(page.url)
        typer.echo("playing begins when the page is opened; Ctrl+C ends it", err=True)
        page.wait_for_viewer()
        return page

    options = {"episodes": episodes, "checkpoint": checkpoint, "seed": seed, "policy": policy}
    try:
        played = play_run(folder, open_page if browser else Window, **options)  # type: ignore[arg-type]
    except EvaluationStopped:
        return  # the window was closed
    for number, (value, steps) in enumerate(zip(played.returns, played.lengths, strict=True), 1):
        typer.echo(f"episode {number}: return {value:.1f} in {steps} steps")


def imagine(
    run: Run = None,
    target: Target = None,
    horizon: Annotated[int, typer.Option(min=1, help="Steps that the model imagines.")] = 15,
    out: Annotated[
        Path | None, typer.Option(help="The picture, a .png; its video goes next to it.")
    ] = None,
    checkpoint: Checkpoint = "best",
    model: Model = None,
    env: Env = None,
    task: TaskNumber = None,
    episodes: Annotated[int, typer.Option(min=1, help="Fresh episodes to predict.")] = 16,
    moment: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="EPISODE:STEP",
            help="Instead: a moment of an episode of the newest evaluation (RECORDING/EPISODE:STEP "
            "of another one).",
            autocompletion=moment_names,
        ),
    ] = None,
    action: Annotated[
        list[str] | None,
        typer.Option(
            help='What is done from there, in turn: a number, "0.5,-1", a name such as left, or '
            '"agent"; "1x10" is 1 ten times. Then the agent continues up to --horizon.',
            autocompletion=one_of("agent"),
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict fresh episodes open loop; write a picture, a video and the error by horizon.

    With --from, other actions follow a moment of a recorded episode: what would have happened, and
    what the model imagines of it.
    """
    from worldflux.errors import ConfigurationError
    from worldflux.files import finite
    from worldflux.progress import on_screen

    if action and moment is None:
        message = "--action changes an episode from --from EPISODE:STEP on, which is missing"
        raise ConfigurationError(message, hint="--from 0:10 --action 1x5")
    with on_screen("opening the run") as screen:
        folder = _opened(run, target, model, env, task)
        from worldflux.project.imagine import imagine_run
        from worldflux.project.what_if import what_if_run

        options = {"horizon": horizon, "out": out, "checkpoint": checkpoint, "progress": screen}
        if moment is None:
            report = imagine_run(folder, episodes=episodes, **options)  # type: ignore[arg-type]
        else:
            report = what_if_run(folder, moment, action or (), **options)  # type: ignore[arg-type]
    typer.echo(json.dumps(finite(report.to_dict()), indent=2) if as_json else str(report))
