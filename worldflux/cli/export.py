"""`worldflux export`: a run's policy as a file that runs without worldflux."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from worldflux.export.formats import FORMATS

from .completion import checkpoint_names, one_of

POLICIES = ("prior", "plan")


def export(
    run: Annotated[
        str | None,
        typer.Argument(
            help="Run, project, saved model or hf://owner/name. Default: this project's run."
        ),
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(help=f"{' or '.join(FORMATS)}.", autocompletion=one_of(*FORMATS)),
    ] = None,
    policy: Annotated[
        str,
        typer.Option(
            help="prior: the learned policy alone; plan: the planner, whose random numbers are "
            "an input.",
            autocompletion=one_of(*POLICIES),
        ),
    ] = "prior",
    output: Annotated[
        Path | None, typer.Option(help="The file. Default: exports/ in the folder of the run.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            help='"best" (the default), "last", an update such as 3000, or a folder.',
            autocompletion=checkpoint_names,
        ),
    ] = None,
    states: Annotated[
        int, typer.Option(min=1, help="Steps of the agent that the export is compared over.")
    ] = 1000,
    check: Annotated[
        Path | None,
        typer.Option(help="Compare this exported file with its agent again; exit code 3: differs."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the certificate.")] = False,
) -> None:
    """Write the policy as a file that runs without worldflux, and a certificate of its accuracy."""
    from worldflux.errors import ConfigurationError
    from worldflux.files import finite
    from worldflux.progress import on_screen
    from worldflux.project.places import run_folder

    if (to is None) == (check is None):
        raise ConfigurationError(
            "either a format or a file to check is needed",
            hint="worldflux export --to onnx, or worldflux export --check FILE",
        )
    with on_screen("opening the agent") as screen:
        from worldflux.export.certificate import check_export, export_agent

        if check is not None:
            file, certificate = check, check_export(check, run, progress=screen)
        else:
            assert to is not None
            file, certificate = export_agent(
                run or str(run_folder()),
                to,
                output,
                policy=policy,
                checkpoint=checkpoint,
                states=states,
                progress=screen,
            )
    if as_json:
        typer.echo(json.dumps(finite(certificate), indent=2))
        return
    rounding = certificate["decided_by_rounding"]
    typer.echo(f"{file}  ({certificate['policy']} of {certificate['model']})")
    for kind in ("inputs", "outputs"):
        typer.echo(f"  {kind:8} {', '.join(port['name'] for port in certificate[kind])}")
    typer.echo(
        f"  differs  by {certificate['largest_difference']:.1e} at most from the agent, "
        f"over {certificate['states']:,} states; rounding decided {rounding['count']:,} of them "
        f"({rounding['share']:.2%})"
    )
