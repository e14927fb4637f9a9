"""`worldflux train`: learn what worldflux.toml says."""

from __future__ import annotations

import json
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from worldflux.errors import ConfigurationError, TrainingError

from .completion import DEVICES, one_of
from .config import Overrides

if TYPE_CHECKING:
    from worldflux.training.callback import Callback


_GIVEN = "worldflux.train"  # the arguments, in the context of the command


class TrainCommand(TyperCommand):
    """Takes `--resume=auto` and `--serve=OPTIONS` besides the flags `--resume` and `--serve`, which
    click cannot read as one option each."""

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
        ctx.meta[_GIVEN] = args
        given = ["--resume-auto" if text == "--resume=auto" else text for text in args]
        given = [text.replace("--serve=", "--serve-with=", 1) for text in given]
        return super().parse_args(ctx, given)


train = typer.Typer(add_completion=False, rich_markup_mode=None)


@train.command(cls=TrainCommand)
def run(
    ctx: typer.Context,
    project: Annotated[
        Path | None,
        typer.Argument(help="Project folder. Default: this one or the nearest above it."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="The same, or its worldflux.toml.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Gradient updates (training.total_steps).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run (training.seed).")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Several runs: 5 (seeds 0 to 4) or 0,1,7, each in OUTPUT_DIR/seed-N."),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at the same time, with --seeds; they share the cores.")
    ] = 1,
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
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Begin with the weights of a saved model, a run or hf://owner/name (start_from).",
        ),
    ] = None,
    freeze: Annotated[
        str | None,
        typer.Option(help="Parts that do not learn, as encoder,dynamics (training.freeze)."),
    ] = None,
    set_: Overrides = None,
    name: Annotated[str | None, typer.Option(help="Name of the run (logging.name).")] = None,
    tag: Annotated[
        list[str] | None, typer.Option(help="A label (logging.tags); repeat it for more.")
    ] = None,
    notes: Annotated[str | None, typer.Option(help="What the run is for (logging.notes).")] = None,
    nproc: Annotated[
        int | None,
        typer.Option(min=1, help="Processes on this machine that share distributed.shards."),
    ] = None,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve",
            help="Let others act with the agent while it learns (worldflux serve RUN --follow); "
            "--serve='--hz 20 --log answers' gives that command more options.",
        ),
    ] = False,
    serve_with: Annotated[str | None, typer.Option("--serve-with", hidden=True)] = None,
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
    from worldflux.project.places import one_place, project_file
    from worldflux.project.schema import renew_schema

    flags = {
        "training.total_steps": steps,
        "training.seed": seed,
        "training.device": device,
        "training.output_dir": output_dir and output_dir.absolute(),
        "logging.name": name and json.dumps(name, ensure_ascii=False),
        "logging.tags": tag and json.dumps(tag, ensure_ascii=False),
        "logging.notes": notes and json.dumps(notes, ensure_ascii=False),
        "training.freeze": freeze and json.dumps([part.strip() for part in freeze.split(",")]),
        "start_from": from_ if from_ is None or "://" in from_ else Path(from_).absolute(),
    }
    overrides = [f"{key}={value}" for key, value in flags.items() if value is not None]
    overrides = [*(set_ or []), *overrides]
    file = project_file(one_place(project, config, "--config"))
    renew_schema(file.parent)
    if seeds is not None:
        auto, again = resume_auto, resume and not resume_auto
        given = {"--resume=auto": auto, "--resume": again, "--strict": strict}
        taken = [flag for flag, is_set in given.items() if is_set]
        if serve or serve_with is not None or seed is not None or overwrite or nproc is not None:
            message = "--seeds goes with none of --seed, --serve, --overwrite and --nproc"
            raise ConfigurationError(message, where="--seeds")
        _train_seeds(file, seeds, jobs, overrides, taken, quiet)
    if nproc is not None and nproc > 1:
        words = without_option(ctx.meta[_GIVEN], "--nproc")
        places = [text for text in overrides if text.startswith("training.output_dir=")]
        checked = places if resume else overrides
        raise typer.Exit(_on_processes(nproc, words, file, checked, strict))
    # A mistake is reported before seconds go into importing torch.
    loaded = file if resume or resume_auto else load_project(file, overrides)

    from worldflux.progress import lasting_output, on_screen
    from worldflux.project.processes import Processes

    follows = Processes().rank > 0  # and leaves the screen to the first process

    with ExitStack() as opened:
        opened.enter_context(lasting_output())
        served = (serve or serve_with is not None) and not follows
        options = _words(serve_with or "") if served else None
        callbacks = [] if options is None else [_served(file, overrides, options, opened)]
        screen = opened.enter_context(on_screen("starting", quiet=quiet or follows, yes=yes))
        from worldflux.project.run import train_project

        outcome = train_project(
            loaded,
            overrides=overrides,
            resume="auto" if resume_auto else resume,
            overwrite=overwrite,
            strict=strict,
            callbacks=callbacks,
            say=screen.say,
            progress=screen,
        )
        screen.close()
        if not outcome.exit_code and not follows:
            typer.echo(str(outcome.folder))
    raise typer.Exit(outcome.exit_code)


def _train_seeds(
    file: Path, seeds: str, jobs: int, overrides: list[str], flags: list[str], quiet: bool
) -> NoReturn:
    """Train one run per seed, each in a separate `worldflux train` process."""
    from worldflux.progress import lasting_output, on_screen
    from worldflux.runs.seeds import parsed_seeds, train_seeds

    numbers = parsed_seeds(seeds)
    with lasting_output(), on_screen("starting", quiet=quiet) as screen:
        parent, code = train_seeds(
            file, numbers, overrides=overrides, jobs=jobs, flags=flags, screen=screen
        )
    if not code:
        typer.echo(str(parent))
    raise typer.Exit(code)


def _on_processes(
    nproc: int, arguments: list[str], file: Path, overrides: list[str], strict: bool
) -> int:
    """Start the command in several processes; a mistake in the project is reported before."""
    from worldflux.project.loader import load_project
    from worldflux.project.processes import launch

    project = load_project(file, overrides)
    try:
        return launch(arguments, nproc)
    except TrainingError as error:  # every process was killed, so that none could say it
        from worldflux.project.resumption import resume_command

        processes = ["--nproc", str(nproc)]
        command = resume_command(project, strict=strict, processes=processes)
        error.hint = f"what was saved is intact: {command}"
        raise


def without_option(arguments: list[str], option: str) -> list[str]:
    """Arguments without an option that takes one value, in either of its forms."""
    kept: list[str] = []
    skip = False
    for text in arguments:
        if not skip and text != option and not text.startswith(f"{option}="):
            kept.append(text)
        skip = text == option
    return kept


def _words(options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError as error:  # a quotation without its end
        raise ConfigurationError(
            f"{options!r} is no list of options: {error}", where="--serve"
        ) from None


def _served(file: Path, overrides: list[str], options: list[str], opened: ExitStack) -> Callback:
    """Start `worldflux serve` for the run that is to begin; the callback publishes its weights."""
    from worldflux.acting.process import acting_process
    from worldflux.backends.program import NATIVE
    from worldflux.optional import require
    from worldflux.project.loader import load_project

    from .app import command_named

    require("serving", "dashboard", "starlette", "uvicorn")
    project = load_project(file, [text for text in overrides if "output_dir" in text])
    if project.training_config().backend != NATIVE:
        raise ConfigurationError("an official program publishes no weights", where="--serve")
    folder = project.root / project.training_config().output_dir
    command_named("serve").make_context("worldflux serve", [str(folder), *options])  # or refused
    process = opened.enter_context(acting_process(folder, options))
    from worldflux.acting.weights import PublishWeights

    return PublishWeights(folder, process)
