"""The `worldflux` command: dispatch, and the one edge where errors become messages and exit codes.

A command's module is imported when that command (or the list of commands) is used; heavy
libraries are imported inside the command functions. `worldflux --help` therefore loads no torch.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

from worldflux.alpha import command_hint, spelled_today
from worldflux.errors import MissingDependencyError, WorldFluxError, described, frames_of

from .completion import VARIABLE, answer_shell, offer_what_fits, take_named_shell
from .examples import add_examples, epilog

_PACKAGE = Path(__file__).parents[1]
_HOME_IN_OPTION = re.compile(r"^(--[\w-]+=)(~(?:/.*)?)$")
_with_its_line = warnings.formatwarning

# Command -> where it is: a function with typer annotations, or a Typer of subcommands.
COMMANDS: dict[str, tuple[str, str]] = {
    "init": ("worldflux.cli.init", "init"),
    "update": ("worldflux.cli.update", "update"),
    "config": ("worldflux.cli.config", "config"),
    "train": ("worldflux.cli.train", "train"),
    "submit": ("worldflux.cli.submit", "submit"),
    "sweep": ("worldflux.cli.sweep", "sweep"),
    "runs": ("worldflux.cli.runs", "runs"),
    "eval": ("worldflux.cli.eval", "evaluate"),
    "play": ("worldflux.cli.eval", "play"),
    "imagine": ("worldflux.cli.eval", "imagine"),
    "trust": ("worldflux.cli.trust", "trust"),
    "verify": ("worldflux.cli.verify", "verify"),
    "report": ("worldflux.cli.verify", "report"),
    "why": ("worldflux.cli.why", "why"),
    "export": ("worldflux.cli.export", "export"),
    "models": ("worldflux.cli.models", "models"),
    "data": ("worldflux.cli.data", "data"),
    "jobs": ("worldflux.cli.jobs", "jobs"),
    "serve": ("worldflux.cli.serve", "serve"),
    "dashboard": ("worldflux.cli.dashboard", "dashboard"),
    "doctor": ("worldflux.cli.doctor", "doctor"),
}

app = typer.Typer(
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=epilog(""),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from worldflux import __version__

        typer.echo(f"worldflux {__version__}")
        raise typer.Exit()


@app.callback()
def worldflux(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks (also WORLDFLUX_DEBUG=1).")
    ] = False,
) -> None:
    """World models for reinforcement learning: init a project, train it, verify it."""


class LazyCommands(Mapping[str, Any]):
    """Commands by name; looking one up imports its module."""

    def __getitem__(self, name: str) -> Any:
        return command_named(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


@functools.cache
def command_named(name: str) -> Any:
    """One of `COMMANDS`, its module imported."""
    module, attribute = COMMANDS[name]
    target = getattr(importlib.import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        folder = typer.Typer(add_completion=False, rich_markup_mode=None)
        folder.command(name)(target)
        target = folder
    command = typer.main.get_command(target)
    offer_what_fits(command)
    add_examples(command, name)
    command.name = name
    command.short_help = re.split("[.;:]", command.help or "")[0]  # one line of the overview
    return command


def main(given: Sequence[str] | None = None) -> None:
    """The entry point. Exits with the codes of the contract; never shows a traceback unasked.

    Args:
        given: the arguments; those of the process by default.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that the terminal cannot show ends nothing
            stream.reconfigure(errors="backslashreplace")
    given = sys.argv[1:] if given is None else given
    warnings.formatwarning = _warning
    # A shell expands ~ at the beginning of a word only.
    words = [
        found[1] + os.path.expanduser(found[2]) if (found := _HOME_IN_OPTION.match(word)) else word
        for word in given
    ]
    arguments = spelled_today([word for word in words if word != "--debug"])
    take_named_shell(arguments)
    group = typer.main.get_command(app)
    group.commands = LazyCommands()  # type: ignore[attr-defined]
    debug = "--debug" in given or _debug_wanted()
    arguments = arguments or ["--help"]

    def work() -> int:
        return _guarded(lambda: group(args=arguments, prog_name="worldflux"), debug)

    code = answer_shell(work) if os.environ.get(VARIABLE) else work()
    if code == 2 and (hint := command_hint(arguments)):
        typer.echo(f"hint: {hint}", err=True)
    try:
        if sys.stdout is not None:  # closed by whoever started us
            sys.stdout.flush()
    except BrokenPipeError:  # the reader went away; leave nothing for the interpreter to flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run_script(work: Callable[[], object]) -> None:
    """Run a project's own script with the edge that the commands have; exits the process."""
    sys.exit(_guarded(work, _debug_wanted()))


def _debug_wanted() -> bool:
    return os.environ.get("WORLDFLUX_DEBUG", "0") not in ("", "0")


def _guarded(work: Callable[[], object], debug: bool) -> int:
    """Do the work; returns the exit code, having reported what went wrong."""
    try:
        work()
    except SystemExit as exit_:
        if isinstance(exit_.__context__, BrokenPipeError):
            return 0  # a reader that has seen enough, as in `worldflux models list | head -1`
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _reported(error)
    return 0


def _reported(error: Exception) -> int:
    """Print the error and return its exit code."""
    if isinstance(error, WorldFluxError):
        report(error)
        return error.exit_code
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("worldflux"):
        package = str(error.name).partition(".")[0]
        message = f"the package {package!r} is not installed"
        report(MissingDependencyError(message, hint=f"pip install {package}"))
        return MissingDependencyError.exit_code
    where = _users_line(error)
    _say_error(f"{where}: {described(error)}" if where else described(error))
    if where:
        typer.echo("hint: --debug shows how it was called", err=True)
    elif not isinstance(error, OSError):
        typer.echo("This is a defect in worldflux; --debug shows where it happened.", err=True)
    return 1


def _users_line(error: Exception) -> str | None:
    """`file:line` of the user's code, or a plug-in's, that we called and that raised."""
    points = [point for package in metadata.distributions() for point in package.entry_points]
    ours = [point.module for point in points if point.group.startswith("worldflux.")]
    plug_ins = {module.partition(".")[0] for module in ours}
    users = frames_of(error)
    place = None
    for frame in traceback.extract_tb(error.__traceback__):
        path = Path(frame.filename)
        if path.is_relative_to(_PACKAGE):
            place = ""
        elif place is not None and (frame in users or plug_ins & {path.stem, *path.parts}):
            place = f"{frame.filename}:{frame.lineno}"
    return place


def _warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """A warning in worldflux's own words without the line that gave it."""
    if Path(filename).is_relative_to(_PACKAGE):
        return f"warning: {message}\n"
    return _with_its_line(message, category, filename, lineno, line)


def report(error: WorldFluxError) -> None:
    """Print what happened, where, and the next step, on stderr."""
    _say_error(error.message if error.where is None else f"{error.where}: {error.message}")
    if error.hint:
        typer.echo(f"hint: {error.hint}", err=True)


def _say_error(text: str) -> None:
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    label = typer.style("error:", fg="red", bold=True) if colour else "error:"
    typer.echo(f"{label} {text}", err=True)
