"""`worldflux dashboard`: the local page over one or several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worldflux.dashboard import DEFAULT_HOST, DEFAULT_PORT


def dashboard(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run folders, projects, or folders of them. Default: this project or folder.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = DEFAULT_HOST,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help=f"Exactly this port. Default: {DEFAULT_PORT} or the next free one.",
            show_default=False,
        ),
    ] = None,
    refresh_ms: Annotated[
        int, typer.Option(min=100, max=3_600_000, help="Milliseconds between two looks.")
    ] = 1000,
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in the browser.")
    ] = False,
    read_only: Annotated[
        bool,
        typer.Option("--read-only", help="Offer no what-if, which runs a run's environment."),
    ] = False,
    allow_remote: Annotated[
        bool,
        typer.Option(
            "--allow-remote", help="Let other machines in, behind a random token in the address."
        ),
    ] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A name that the page may be opened under, such as a proxy's."
        ),
    ] = None,
    base_path: Annotated[
        str, typer.Option(metavar="PATH", help="Prefix that a proxy leaves in the path.")
    ] = "",
) -> None:
    """Watch runs on a local page: curves, progress, configuration and videos, live.

    The page only reads the run folders. On this machine it also plays recorded episodes on with
    other actions (--read-only: not). The address is printed on stdout.
    """
    from worldflux.dashboard import serve
    from worldflux.dashboard.discovery import require_runs
    from worldflux.project.places import project_file

    def announce(address: str) -> None:
        typer.echo("serving the dashboard; press Ctrl+C to stop", err=True)
        typer.echo(address)

    serve(
        require_runs(runs or [project_file().parent]),
        host=host,
        port=DEFAULT_PORT if port is None else port,
        exact_port=port is not None,
        refresh_ms=refresh_ms,
        open_browser=open_browser,
        read_only=read_only,
        allow_remote=allow_remote,
        allow_hosts=allow_host or (),
        base_path=base_path,
        announce=announce,
    )
