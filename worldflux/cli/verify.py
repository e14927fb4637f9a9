"""`worldflux verify` and `worldflux report`: is a run intact, does its agent act, is it as good as
published; the verdict in the terminal, or as one HTML page for other people."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .completion import one_of

if TYPE_CHECKING:
    from worldflux.project.sections import VerifySection
    from worldflux.verify.evidence import Inputs
    from worldflux.verify.verdict import Verdict

CHECK_FAILED = 3
MODES = ("auto", "quick", "proof")


def verify(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Folder of the run or project; in proof mode several, or one of runs."),
    ] = None,
    target: Annotated[list[Path] | None, typer.Option(help="The same.")] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="auto, quick or proof; by default as worldflux.toml says.",
            autocompletion=one_of(*MODES),
        ),
    ] = None,
    reference: Annotated[
        list[Path] | None, typer.Option(help="A file of published curves, besides those included.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write one self-contained HTML page with the plots.")
    ] = None,
    evidence: Annotated[
        Path | None,
        typer.Option(help="Copy and hash every input; without --target: re-verify that folder."),
    ] = None,
    no_weights: Annotated[
        bool,
        typer.Option(
            "--no-weights", help="Of checkpoints, --evidence gets hashes only (--mode proof)."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a run, or several against a published curve; exit code 3 when a check fails."""
    from worldflux.errors import ConfigurationError
    from worldflux.files import finite, require_place
    from worldflux.progress import on_screen
    from worldflux.project.places import run_folder, whole_run

    if report is not None:
        require_place(report, "--report", makes_folders=True)
    if no_weights and evidence is None:
        raise ConfigurationError("--no-weights is about an evidence folder", hint="--evidence DIR")
    named = [*(runs or []), *(target or [])]
    with on_screen("opening the run") as screen:
        from worldflux.verify.evidence import FILE, check_evidence, judge, write_evidence

        if evidence is not None and not named and (evidence / FILE).is_file():
            verdict = check_evidence(evidence, screen)
        else:
            # A project is its one run, but in a proof all of them.
            folder_of = whole_run if mode == "proof" else run_folder
            named = [folder_of(place) for place in named] or [run_folder()]
            inputs = _inputs(tuple(named), mode, tuple(reference or []))
            verdict = judge(inputs, screen)
            if evidence is not None:
                write_evidence(evidence, inputs, verdict, weights=not no_weights)
            if report is not None:
                _write_page(report, inputs, verdict)
    typer.echo(json.dumps(finite(verdict.to_dict()), indent=2) if as_json else _shown(verdict))
    if not verdict.passed:
        raise typer.Exit(CHECK_FAILED)


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders or projects. Default: the run of this folder."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    mode: Annotated[
        str,
        typer.Option(
            help="auto (proof for several runs, else quick), quick or proof.",
            autocompletion=one_of(*MODES),
        ),
    ] = "auto",
) -> None:
    """Verify runs and write one HTML page: verdict, plots, versions, commands, numbers.

    The page loads nothing, prints on A4, and is written whatever the verdict is.
    """
    from worldflux.files import require_place
    from worldflux.progress import on_screen
    from worldflux.project.places import run_folder

    require_place(out, "--out", makes_folders=True)
    named = tuple(run_folder(place) for place in runs) if runs else (run_folder(),)
    with on_screen("opening the run") as screen:
        from worldflux.verify.evidence import judge

        inputs = _inputs(named, mode)
        verdict = judge(inputs, screen)
        _write_page(out, inputs, verdict)
    typer.echo(f"verdict: {verdict.word.upper()}", err=True)
    typer.echo(str(out))


def _shown(verdict: Verdict) -> str:
    """In colour and wrapped on a terminal; a line a check elsewhere, which a script can read."""
    if not sys.stdout.isatty():
        return str(verdict)
    colours = {"pass": "green", "warn": "yellow", "fail": "red"}
    plain = bool(os.environ.get("NO_COLOR"))

    def paint(words: str, status: str) -> str:
        return words if plain else typer.style(words, fg=colours.get(status), bold=True)

    return verdict.text(shutil.get_terminal_size().columns, paint)


def _inputs(
    targets: tuple[Path, ...], mode: str | None, references: tuple[Path, ...] = ()
) -> Inputs:
    """What is judged: the runs found in the targets, in the given mode or the one that fits."""
    from worldflux.errors import ConfigurationError, did_you_mean
    from worldflux.verify.evidence import Inputs
    from worldflux.verify.proof import ProofSettings
    from worldflux.verify.quick import QuickSettings
    from worldflux.verify.run_scores import collect_runs

    runs = collect_runs(targets)
    settings = _settings(runs[0].folder)
    wanted = settings.mode if mode is None else mode
    if wanted not in MODES:
        raise ConfigurationError(
            f"there is no verify mode {wanted!r}: {', '.join(MODES)}",
            hint=did_you_mean(wanted, MODES),
        )
    if wanted == "auto":  # several runs can only be compared
        wanted = "proof" if len(runs) > 1 or references else "quick"
    if wanted == "proof":
        proof = ProofSettings(settings.alpha, settings.margin, settings.min_seeds)
        return Inputs("proof", targets, references, proof)
    if len(runs) > 1 or references:
        raise ConfigurationError(
            f"quick mode checks one run, without references; these are {len(runs)}",
            hint="--mode proof compares several runs with a published curve",
        )
    quick = QuickSettings(settings.episodes, settings.alpha, settings.threshold)
    return Inputs("quick", (runs[0].folder,), (), quick)


def _write_page(path: Path, inputs: Inputs, verdict: Verdict) -> None:
    """Write the HTML page of a verdict."""
    from worldflux.verify.report import write_report
    from worldflux.verify.run_scores import collect_runs

    write_report(path, verdict, [run.folder for run in collect_runs(inputs.targets)])


def _settings(target: Path) -> VerifySection:
    """[verify] of the run's project, or its defaults."""
    from worldflux.project.manifest import read_manifest
    from worldflux.project.open_run import project_of
    from worldflux.project.sections import VerifySection

    project = project_of(target, read_manifest(target))
    return VerifySection() if project is None else project.sections.verify
