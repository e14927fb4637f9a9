"""`worldflux doctor`: is this machine ready, and what mends it."""

from __future__ import annotations

import json
from typing import Annotated

import typer

CHECK_FAILED = 3


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check versions, devices, rendering and environments; exit code 3 when a check fails."""
    from worldflux.doctor import diagnose

    diagnosis = diagnose()
    typer.echo(json.dumps(diagnosis.to_dict(), indent=2) if as_json else str(diagnosis))
    if not diagnosis.healthy:
        raise typer.Exit(CHECK_FAILED)
