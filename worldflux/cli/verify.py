"""`worldflux verify`: is this run intact, does its agent act."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from worldflux.project.sections import VerifySection

CHECK_FAILED = 3


def verify(
    target: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("outputs"),
    mode: Annotated[
        str | None, typer.Option(help='"quick" or "auto"; by default as worldflux.toml says.')
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a run; exit code 3 when a check fails."""
    from worldflux.errors import ConfigurationError
    from worldflux.files import finite
    from worldflux.verify.quick import verify_quick

    settings = _settings(target)
    wanted = settings.mode if mode is None else mode
    if wanted not in ("quick", "auto"):
        raise ConfigurationError(
            f"verify mode {wanted!r} is not offered by this version: 'quick' or 'auto' (quick)",
            hint="worldflux verify --mode quick",
        )
    verdict = verify_quick(
        target,
        episodes=settings.episodes,
        alpha=settings.alpha,
        threshold=settings.threshold,
    )
    typer.echo(json.dumps(finite(verdict.to_dict()), indent=2) if as_json else str(verdict))
    if not verdict.passed:
        raise typer.Exit(CHECK_FAILED)


def _settings(target: Path) -> VerifySection:
    """[verify] of the project that the run lies in, or its defaults."""
    from worldflux.project.loader import load_project
    from worldflux.project.open_run import project_root
    from worldflux.project.sections import VerifySection

    root = project_root(target)
    return VerifySection() if root is None else load_project(root).sections.verify
