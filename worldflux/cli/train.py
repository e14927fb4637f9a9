"""`worldflux train`: learn what worldflux.toml says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from .completion import DEVICES, one_of, settings


class TrainCommand(TyperCommand):
    """Takes `--resume=auto` besides the flag `--resume`, which click cannot read as one option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for text in args:
            if text.startswith("--resume=") and text != "--resume=auto":
                value = text.partition("=")[2]
                raise typer.BadParameter(
                    f"{value!r} is not allowed: write --resume, which continues the newest run of "
                    "the output folder, or --resume=auto, which starts one where there is none",
                    ctx,
                    param_hint="--resume",
                )
        given = ["--resume-auto" if text == "--resume=auto" else text for text in args]
        return super().parse_args(ctx, given)


train = typer.Typer(add_completion=False, rich_markup_mode=None)


@train.command(cls=TrainCommand)
def run(
    project: Annotated[
        Path | None,
        typer.Argument(help="Project folder. Default: this one or the nearest above it."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The same, or its worldflux.toml.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Gradient updates (training.total_steps).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run (training.seed).")] = None,
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda, cuda:N or mps.", autocompletion=one_of(*DEVICES)),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run (training.output_dir).")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Continue this run from its newest valid checkpoint, with its own settings; "
            "--resume=auto starts it where there is none.",
        ),
    ] = False,
    resume_auto: Annotated[bool, typer.Option("--resume-auto", hidden=True)] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start over; the old run is kept as a copy.")
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="One setting, over the file's.",
            autocompletion=settings,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail instead of falling back, e.g. to the CPU.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print warnings only.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Start a run of more than a day without asking.")
    ] = False,
) -> None:
    """Train the project of this folder; Ctrl+C saves and prints the command that continues."""
    from worldflux.project.loader import load_project
    from worldflux.project.places import project_file
    from worldflux.project.schema import renew_schema

    flags = {
        "training.total_steps": steps,
        "training.seed": seed,
        "training.device": device,
        "training.output_dir": output_dir and output_dir.absolute(),
    }
    given = [f"{key}={value}" for key, value in flags.items() if value is not None]
    overrides = [*(set_ or []), *given]
    file = project_file(project or config)
    renew_schema(file.parent)
    # A mistake is reported before seconds go into importing torch.
    loaded = file if resume or resume_auto else load_project(file, overrides)

    from worldflux.progress import lasting_output, on_screen

    with lasting_output(), on_screen("starting", quiet=quiet, yes=yes) as screen:
        from worldflux.project.run import train_project

        outcome = train_project(
            loaded,
            overrides=overrides,
            resume="auto" if resume_auto else resume,
            overwrite=overwrite,
            strict=strict,
            say=screen.say,
            progress=screen,
        )
        screen.close()
        if not outcome.exit_code:
            typer.echo(str(outcome.folder))
    raise typer.Exit(outcome.exit_code)
