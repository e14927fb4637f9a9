"""`worldflux serve`: a run's agent behind a small local server, and the replay of its log."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from worldflux.acting import DEFAULT_HZ, DEFAULT_PORT

from .completion import DEVICES, checkpoint_names, one_of

SWITCH_S = 1e-4


def serve(
    run: Annotated[
        Path | None,
        typer.Argument(help="Folder of the run or project. Default: this project's run."),
    ] = None,
    hz: Annotated[
        float, typer.Option(help="Observations a second of a client; each is answered in time.")
    ] = DEFAULT_HZ,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help='"best" (the default), "last", an update such as 3000, or a folder.',
            autocompletion=checkpoint_names,
            show_default=False,
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Act with what `worldflux train --serve` publishes.")
    ] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"Exactly this port. Default: {DEFAULT_PORT} or the next free one.",
            show_default=False,
        ),
    ] = None,
    socket: Annotated[
        Path | None, typer.Option(help="Listen on a Unix socket at this path, too.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(help="A new folder for every answer, to be replayed.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(help="Repeat every answer of this log instead, and compare.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of every session.")] = 0,
    session_seconds: Annotated[
        float, typer.Option(min=1, help="A session ends after so long without an observation.")
    ] = 60.0,
    device: Annotated[
        str,
        typer.Option(help="auto, cpu, cuda, cuda:N or mps.", autocompletion=one_of(*DEVICES)),
    ] = "cpu",
    until_eof: Annotated[bool, typer.Option("--until-eof", hidden=True)] = False,
) -> None:
    """Answer observations with actions, over HTTP and a Unix socket of this machine.

    Each answer comes by its deadline with the best plan until then, and says how good it is.
    The addresses are printed on stdout.
    """
    from worldflux.optional import require
    from worldflux.project.places import run_folder

    folder = run_folder(run)
    if replay is not None:
        raise typer.Exit(_replayed(folder, replay, device))
    require("serving", "dashboard", "starlette", "uvicorn")
    if follow and not until_eof:  # which train --serve starts before its run begins
        _require_followed(folder)
    from worldflux.acting.serving import agent_server

    with agent_server(
        folder,
        hz=hz,
        checkpoint=checkpoint,
        follow=follow,
        port=port,
        socket_path=socket,
        log=log,
        seed=seed,
        idle_s=session_seconds,
        device=device,
        say=_say,
    ) as server:
        _say(f"a whole answer takes {server.whole_ms:.1f} ms, the deadline is {1000 / hz:g} ms")
        for address in server.addresses:
            typer.echo(address)
        if until_eof:
            threading.Thread(target=_end_with_input, args=(server.stop,), daemon=True).start()
        # What exists now lives as long as the server: no answer waits while it is looked through.
        gc.collect()
        gc.freeze()
        # Every operation of torch gives the interpreter away, and takes it back this soon.
        sys.setswitchinterval(SWITCH_S)
        server.run()


def _require_followed(run: Path) -> None:
    """Refuse what no learner can publish in, and say what is waited for where none has yet."""
    from worldflux.acting.weights import newest
    from worldflux.errors import RunFolderError

    if not run.is_dir():
        hint = "start the run first: worldflux train --serve"
        raise RunFolderError("there is no run to follow", where=str(run), hint=hint)
    if newest(run) is None:
        _say(f"waiting in {run} for the first weights, which worldflux train --serve publishes")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _end_with_input(stop: Callable[[], None]) -> None:
    sys.stdin.buffer.read()
    stop()


def _replayed(run: Path, log: Path, device: str) -> int:
    """Replay a log and print what was found; the exit code."""
    from worldflux.acting.answer_log import replay
    from worldflux.acting.load import load_agent
    from worldflux.progress import counted

    found = replay(load_agent(run, device=device), log)
    many = f"{counted(found.answers, 'answer')} of {counted(found.sessions, 'session')}"
    if not found.different:
        typer.echo(f"{many} repeated exactly")
        return 0
    typer.echo(f"{len(found.different):,} of {many} differ, the first in row {found.different[0]}")
    return 3
