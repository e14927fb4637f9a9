"""`worldflux data`: what recorded data holds; recording and converting it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

data = typer.Typer(
    help="Recorded data to learn from.",
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
)


@data.callback()
def _data() -> None:
    """Recorded data to learn from."""


@data.command("info")
def info(
    target: Annotated[
        str | None,
        typer.Argument(
            help="A project, an .npz, .hdf5 or .h5 file, a LeRobot data set, a folder of .npz "
            "episodes, or the id of a Minari data set. "
            "Default: this project."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what is in recorded data; every value is read and checked."""
    from worldflux.files import finite
    from worldflux.project.data_report import report_on
    from worldflux.project.places import project_file

    report = report_on(target or str(project_file()))
    typer.echo(json.dumps(finite(report.to_dict()), indent=2) if as_json else str(report))


@data.command("convert")
def convert(
    target: Annotated[str, typer.Argument(help="Recorded data, as data info takes it.")],
    out: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    dones: Annotated[
        Literal["terminations", "time_limits"] | None,
        typer.Option(help="What ends are of which the data does not say why."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Side of the images of a LeRobot data set.")
    ] = None,
    env: Annotated[
        str | None,
        typer.Option(help="Id of the environment that it was recorded in, for its bounds."),
    ] = None,
) -> None:
    """Copy recorded data into one npz file as the replay holds it."""
    from worldflux.project.data_report import convert as converted

    copied = converted(target, out, dones, image_size, env)
    for note in copied.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(f"{out}: {copied.replay}")


@data.command("record")
def record(
    out: Annotated[Path, typer.Argument(help="A new folder, for one npz file an episode.")],
    env: Annotated[
        str | None, typer.Option(help="Environment id. Default: that of this project.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help='"random", "human" (with the keyboard), or MODULE:FUNCTION.')
    ] = "random",
    episodes: Annotated[int, typer.Option(min=1, help="Episodes to play.")] = 10,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the first episode.")] = 0,
    key: Annotated[
        list[str] | None,
        typer.Option(help='Of "human": KEY=ACTION, such as left=0, left+up=3 or none=1.'),
    ] = None,
    minari: Annotated[
        str | None, typer.Option(help="Also write a Minari data set with this id.")
    ] = None,
) -> None:
    """Record episodes of a policy, or of you."""
    from worldflux.project.data_record import record_episodes

    record_episodes(
        out, env, policy, episodes=episodes, seed=seed, keys=key or (), minari_id=minari
    )
