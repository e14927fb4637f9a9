"""One self-contained HTML page of a verdict: checks, plots, runs, commands; it loads nothing."""

from __future__ import annotations

import base64
import html
import json
import shlex
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from worldflux.errors import WorldFluxError
from worldflux.files import finite, write_text
from worldflux.progress import duration
from worldflux.project.manifest import read_manifest
from worldflux.run_log import EVALUATIONS, read_evaluations

from . import report_plots
from .proof import Task
from .verdict import Check, Verdict

_STYLE = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; margin: 2rem auto; max-width: 60rem;
       padding: 0 1rem; color: #1d1d1f; background: #fff; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.word { font-size: 1.6rem; font-weight: 600; margin: .3rem 0; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #ddd; padding: .35rem .8rem .35rem 0; text-align: left;
         vertical-align: top; }
th { font-weight: 600; overflow-wrap: normal; min-width: 6.5rem; }
.pass { color: #0a7a3b; } .warn { color: #8a5a00; } .fail { color: #b00020; }
.not_applicable, .muted { color: #5c5c66; }
figure { margin: 1rem 0; } figure img { max-width: 100%; height: auto; }
figcaption { color: #5c5c66; font-size: .9rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr));
        gap: 0 1rem; }
pre { white-space: pre-wrap; background: #f5f5f7; padding: .8rem; font-size: .85rem; }
summary { cursor: pointer; }
@media (max-width: 40rem) { .checks tr { display: block; padding: .4rem 0; }
  .checks tr:first-child { display: none; } .checks td { display: block; border: 0; padding: 0; } }
@media print { @page { size: A4; margin: 16mm; } body { margin: 0; max-width: none; padding: 0;
  font-size: 11px; } figure, tr, pre { break-inside: avoid; } h2 { break-after: avoid; }
  details:not([open]) { display: none; } figure img { max-height: 120mm; } }
"""
_CAPTIONS = {
    "observation model": "Open-loop error of observations by horizon, over fresh episodes.",
    "reward model": "Open-loop error of rewards by horizon, over fresh episodes.",
}


def write_report(
    path: Path,
    verdict: Verdict,
    tasks: Sequence[Task] = (),
    runs: Sequence[Path] = (),
    *,
    date: str | None = None,
) -> Path:
    """Write the page of a verdict.

    Args:
        tasks: plotted next to their published curves.
        runs: the run folders: their learning curves, environment, versions and commands.
        date: when it was made; today by default.
    """
    text = html_report(verdict, tasks, runs, date or time.strftime("%Y-%m-%d"))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def html_report(
    verdict: Verdict, tasks: Sequence[Task] = (), runs: Sequence[Path] = (), date: str = ""
) -> str:
    """The page as text."""
    word, tone = html.escape(verdict.word), "pass" if verdict.passed else "fail"
    rows = "".join(_row(check) for check in verdict.checks)
    notes = "".join(f"<li>{html.escape(warning)}</li>" for warning in verdict.warnings)
    known = [(folder, manifest) for folder in runs if (manifest := _manifest(folder))]
    plots = [_figure(report_plots.published_curve(task), _compared(task)) for task in tasks]
    plots += _plots(verdict.checks)
    curves = [_curve(folder, manifest) for folder, manifest in known]
    numbers = html.escape(json.dumps(finite(verdict.to_dict()), indent=2))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>worldflux report: {word}</title><style>{_STYLE}</style></head><body>"
        f"<h1>worldflux report, {html.escape(verdict.mode)} verification</h1>"
        f'<p class="word {tone}">{word}</p>'
        f'<p class="muted">{html.escape(" · ".join(filter(None, (verdict.target, date))))}</p>'
        + (f"<h2>Runs</h2>{_runs(known)}" if known else "")
        + '<h2>Checks</h2><table class="checks">'
        + f"<tr><th>check</th><th>result</th><th>found</th></tr>{rows}</table>"
        + (f"<h2>To know</h2><ul>{notes}</ul>" if notes else "")
        + (f"<h2>Results</h2>{''.join(plots)}" if plots else "")
        + (f"<h2>Learning curves</h2>{''.join(curves)}" if any(curves) else "")
        + _imagined(known)
        + (
            f"<h2>To repeat</h2><pre>{html.escape(_commands(known, verdict))}</pre>"
            if known
            else ""
        )
        + f"<h2>Numbers</h2><details><summary>All numbers of the verdict</summary><pre>{numbers}"
        "</pre></details></body></html>\n"
    )


def _row(check: Check) -> str:
    label = check.status.replace("_", " ")
    return (
        f'<tr><td>{html.escape(check.name)}</td><td class="{check.status}">{label}</td>'
        f"<td>{html.escape(check.detail)}</td></tr>"
    )


def _figure(drawing: str, caption: str) -> str:
    data = base64.b64encode(drawing.encode()).decode("ascii")
    words = html.escape(caption)
    return (
        f'<figure><img alt="{words}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _plots(checks: Sequence[Check]) -> list[str]:
    """Fresh returns, then pairs of open-loop errors and calibrations."""
    returns = report_plots.fresh_returns(checks)
    words = "Returns of fresh episodes next to a random policy's; the tick is each one's mean."
    plots = [] if returns is None else [_figure(returns, words)]
    pairs = []
    for check in checks:
        if (drawing := report_plots.open_loop_error(check)) is not None:
            pairs.append(_figure(drawing, _CAPTIONS[check.name]))
        title = {"value": "discounted return", "reward bias": "reward of a step"}.get(check.name)
        if title and (drawing := report_plots.calibration(check, title)) is not None:
            pairs.append(_figure(drawing, f"Calibration of the {title}, over fresh episodes."))
    return [*plots, f'<div class="pair">{"".join(pairs)}</div>'] if pairs else plots


def _compared(task: Task) -> str:
    source = task.curve.source
    return f"{task.curve.environment}: runs next to {source.algorithm}, {source.source}."


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return read_manifest(folder)
    except WorldFluxError:
        return {}


def _curve(folder: Path, manifest: dict[str, Any]) -> str:
    rows = list(read_evaluations(folder / EVALUATIONS))
    if not rows:
        return ""
    caption = f"Evaluations of {folder}; the band is one standard deviation over episodes."
    return _figure(report_plots.learning_curve(manifest, rows), caption)


def _runs(known: Iterable[tuple[Path, dict[str, Any]]]) -> str:
    return "".join(
        "<table>"
        + "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
            for name, value in _facts(folder, manifest)
            if value not in (None, "")
        )
        + "</table><p></p>"
        for folder, manifest in known
    )


def _facts(folder: Path, manifest: dict[str, Any]) -> list[tuple[str, Any]]:
    environment, best = manifest.get("environment") or {}, manifest.get("best") or {}
    software, machine = manifest.get("software") or {}, manifest.get("machine") or {}
    updated = manifest.get("updated_at")
    ended = time.strftime("%Y-%m-%d", time.gmtime(updated)) if updated else None
    counted = [f"{manifest.get('global_step', 0):,} updates"]
    counted.append(f"{manifest.get('env_steps', 0):,} environment steps")
    if isinstance(manifest.get("wall_s"), int | float):
        counted.append(duration(manifest["wall_s"]))
    return [
        ("run", folder),
        ("environment", environment.get("id")),
        ("model", f"{manifest.get('model')}, {manifest.get('parameters') or 0:,} parameters"),
        ("seed", (manifest.get("seeds") or {}).get("run")),
        ("status", ", ".join(filter(None, (manifest.get("status"), ended)))),
        ("trained", ", ".join(counted)),
        ("best return", _return(best)),
        ("random policy's return", _rounded(manifest.get("random_return_mean"))),
        ("degraded", ", ".join(manifest.get("degraded_modes") or []) or "nothing"),
        ("versions", ", ".join(f"{name} {version}" for name, version in software.items())),
        ("machine", ", ".join(f"{name} {value}" for name, value in machine.items())),
        ("configuration", manifest.get("config_hash")),
        ("weights (sha256)", manifest.get("weights_sha256")),
    ]


def _return(entry: dict[str, Any]) -> str | None:
    if not isinstance(entry.get("return_mean"), int | float):
        return None
    spread = f" ± {entry['return_std']:.4g}" if entry.get("return_std") is not None else ""
    return (
        f"{entry['return_mean']:.4g}{spread} over {entry.get('episodes')} episodes, "
        f"at update {entry.get('step', 0):,}"
    )


def _rounded(value: Any) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else None


def _imagined(known: Sequence[tuple[Path, dict[str, Any]]]) -> str:
    """The newest picture of what each run's model imagined."""
    found = []
    for folder, _ in known[:4]:
        drawings = [p for p in (folder / "imagination").glob("*.svg") if "-dark" not in p.name]
        if drawings:
            newest = max(drawings, key=lambda path: path.name)
            text = newest.read_text(encoding="utf-8")
            found.append(_figure(text, f"What the model imagined: {newest}."))
    return f"<h2>Imagination</h2>{''.join(found)}" if found else ""


def _commands(known: Sequence[tuple[Path, dict[str, Any]]], verdict: Verdict) -> str:
    """What made each run, a line for every start and resume, and what checked them."""
    lines = []
    for folder, manifest in known:
        for session in manifest.get("sessions") or [manifest]:
            command = session.get("command")
            words = command if isinstance(command, list) else ["worldflux", "train"]
            lines.append(f"{shlex.join(str(word) for word in words)}  # {folder}")
    targets = " ".join(f"--target {shlex.quote(str(folder))}" for folder, _ in known)
    lines.append(f"worldflux verify {targets} --mode {verdict.mode}")
    return "\n".join(lines)
