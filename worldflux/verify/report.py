"""One self-contained HTML page of a verdict: checks, plots, runs, commands; it loads nothing."""

from __future__ import annotations

import base64
import html
import io
import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from worldflux.errors import WorldFluxError
from worldflux.evaluation.plots import (
    AGENT,
    BASELINE,
    MODEL,
    draw_errors,
    draw_returns,
    finish,
    run_title,
)
from worldflux.files import finite, write_text
from worldflux.layout import IMAGINATION
from worldflux.progress import counted, duration
from worldflux.project.manifest import read_manifest
from worldflux.run_log import EVALUATIONS, read_evaluations

from .proof import Task
from .verdict import Check, Verdict

Known = list[tuple[Path, dict[str, Any]]]
THRESHOLD = "#00785a"
_PREDICTIONS = {
    "observation model": ("observations", "observation error"),
    "reward model": ("rewards", "reward error (reward)"),
}
_CALIBRATED = {"value": "discounted return", "reward bias": "reward of a step"}


def write_report(
    path: Path, verdict: Verdict, runs: Sequence[Path] = (), *, date: str | None = None
) -> Path:
    """Write the page of a verdict; `runs` add their learning curves, versions and commands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, html_report(verdict, runs, date or time.strftime("%Y-%m-%d")))
    return path


def html_report(verdict: Verdict, runs: Sequence[Path] = (), date: str = "") -> str:
    """The page as text."""
    known = [(folder, manifest) for folder in runs if (manifest := _manifest(folder))]
    numbers = html.escape(json.dumps(finite(verdict.to_dict()), indent=2))
    sections = {
        "Runs": "".join(_facts_table(folder, manifest) for folder, manifest in known),
        "Checks": _checks_table(verdict.checks),
        "To know": _list(verdict.warnings),
        "Results": "".join(_plots(verdict)),
        "Learning curves": "".join(_learning_curves(known)),
        "Imagination": "".join(_imaginations(known)),
        "To repeat": f"<pre>{html.escape(_commands(known, verdict))}</pre>" if known else "",
        "Numbers": f"<details><summary>All numbers</summary><pre>{numbers}</pre></details>",
    }
    page = (resources.files("worldflux.verify") / "report.html").read_text(encoding="utf-8")
    return Template(page).substitute(
        mode=html.escape(verdict.mode),
        tone="pass" if verdict.passed else "fail",
        word=html.escape(verdict.word),
        subject=html.escape(" · ".join(filter(None, (verdict.target, date)))),
        sections="\n".join(f"<h2>{title}</h2>{text}" for title, text in sections.items() if text),
    )


def _checks_table(checks: Sequence[Check]) -> str:
    rows = "".join(
        f'<tr><td>{html.escape(check.name)}</td><td class="{check.status}">'
        f"{check.status.replace('_', ' ')}</td><td>{html.escape(check.detail)}</td></tr>"
        for check in checks
    )
    header = "<tr><th>check</th><th>result</th><th>found</th></tr>"
    return f'<table class="checks">{header}{rows}</table>'


def _list(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{html.escape(text)}</li>" for text in texts)
    return f"<ul>{items}</ul>" if items else ""


def _figure(drawing: str, caption: str, kind: str = "plot") -> str:
    data = base64.b64encode(drawing.encode()).decode("ascii")
    words = html.escape(caption)
    return (
        f'<figure class="{kind}"><img alt="{words}" src="data:image/svg+xml;base64,{data}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _plot(
    draw: Callable[[Any], None], caption: str, width: float = 6.4, height: float = 3.6
) -> str:
    """A figure of one panel, without date and version, so that the same data is the same text."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "worldflux"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        draw(axes)
        finish(axes)
        text = io.StringIO()
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})
    return _figure(text.getvalue(), caption)


def _plots(verdict: Verdict) -> Iterator[str]:
    """Published curves, fresh returns, then pairs of open-loop errors and calibrations."""
    for task in verdict.tasks:
        source = task.curve.source
        caption = f"{task.curve.environment}: runs next to {source.algorithm}, {source.source}."
        yield _plot(partial(_draw_published, task=task), caption, 7.2, 4.6)
    numbers = {check.name: check.numbers for check in verdict.checks}
    policy = numbers.get("policy", {})
    if policy.get("returns") and policy.get("random_returns"):
        threshold = numbers.get("threshold", {}).get("threshold")
        draw = partial(_draw_fresh_returns, numbers=policy, threshold=threshold)
        caption = "Returns of fresh episodes next to a random policy's; each tick is a mean."
        yield _plot(draw, caption, height=2.6)
    pairs = "".join(_prediction_plots(numbers))
    if pairs:
        yield f'<div class="pair">{pairs}</div>'


def _prediction_plots(numbers: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, found in numbers.items():
        if name in _PREDICTIONS and isinstance(found.get("model"), list):
            what, unit = _PREDICTIONS[name]
            errors = partial(draw_errors, numbers=found, windows=found["windows"], unit=unit)
            yield _plot(errors, f"Open-loop error of {what}, over fresh episodes.", 4.4, 3.5)
        if name in _CALIBRATED and found.get("points"):
            title = _CALIBRATED[name]
            pairs = partial(_draw_calibration, points=found["points"], title=title)
            yield _plot(pairs, f"Calibration of the {title}, over fresh episodes.", 4.4, 3.5)


def _draw_published(axes: Any, task: Task) -> None:
    """Each run's returns over frames, next to the published means and deviations.

    Published points may be 100,000 frames apart and say nothing between them: no line joins them.
    """
    curve, one = task.curve, len(task.runs) == 1
    seeds = ", ".join(str(run.seed) for run in task.runs)
    points: dict[str, Any] = {"capsize": 4, "linestyle": "none"}
    label = f"published: {curve.source.algorithm}, {curve.seeds} seeds, mean and deviation"
    theirs = (curve.steps, curve.mean, curve.sd)
    axes.errorbar(*theirs, label=label, color=BASELINE, marker="o", **points)
    longest: float = task.frames
    name = "our run" if one else f"our {len(task.runs)} runs (seeds {seeds})"
    for index, run in enumerate(task.runs):
        frames, returns = zip(*run.points(curve.source), strict=True)
        axes.plot(frames, returns, color=AGENT, alpha=0.45, label=None if index else name)
        longest = max(longest, *frames)
    mean, deviation = [task.scores.returns.mean()], [task.scores.returns.std()]
    label = f"{'our return' if one else 'our mean and deviation'} at {task.frames:,} frames"
    ours = ([task.frames], mean, None if one else deviation)
    axes.errorbar(*ours, label=label, color=AGENT, marker="s", **points)
    axes.axhline(task.scores.random, color=MODEL, linestyle="--", label="random policy")
    axes.set_xlim(0, 1.1 * longest)
    axes.set_xlabel("environment frames")
    axes.set_ylabel("return (sum of rewards)")
    axes.set_title(curve.environment, fontsize=10)


def _draw_fresh_returns(axes: Any, numbers: dict[str, Any], threshold: float | None) -> None:
    """Returns of the fresh episodes next to the random policy's and the threshold."""
    agent, random = numbers["returns"], numbers["random_returns"]
    for place, values, colour, marker in ((1, agent, AGENT, "o"), (0, random, BASELINE, "s")):
        spread = np.linspace(-0.18, 0.18, len(values))
        axes.plot(values, place + spread, marker, color=colour, alpha=0.5, markersize=4)
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
    mean = numbers["return_mean"]
    least = numbers["random_return_mean"] + numbers["difference_lower_bound"]
    label = f"mean, and at least this at {1 - numbers['alpha']:.0%} confidence"
    bar = [[max(0.0, mean - least)], [0.0]]
    axes.errorbar([mean], [1.38], xerr=bar, color=AGENT, marker="|", capsize=4, label=label)
    if threshold is not None:
        axes.axvline(threshold, color=THRESHOLD, linestyle="-.", label="threshold")
    axes.set_yticks([0, 1], ["random policy", "agent"])
    axes.set_ylim(-0.5, 1.7)
    axes.set_xlabel("return of an episode (sum of rewards)")


def _draw_calibration(axes: Any, points: list[list[float]], title: str) -> None:
    predicted, received = np.array(points).T
    ends = [min(predicted.min(), received.min()), max(predicted.max(), received.max())]
    axes.plot(ends, ends, color=BASELINE, linestyle="--", label="as predicted")
    axes.plot(predicted, received, "o", color=AGENT, alpha=0.4, markersize=3)
    axes.set_xlabel(f"predicted {title}")
    axes.set_ylabel(f"{title} received")


def _learning_curves(known: Known) -> Iterator[str]:
    for folder, manifest in known:
        rows = list(read_evaluations(folder / EVALUATIONS))
        if rows:
            draw = partial(draw_returns, rows=rows, title=run_title(manifest))
            caption = f"Evaluations of {folder}; the band is one standard deviation over episodes."
            yield _plot(draw, caption)


def _imaginations(known: Known) -> Iterator[str]:
    """The newest picture of what each run's model imagined."""
    for folder, _ in known[:4]:
        drawings = [p for p in (folder / IMAGINATION).glob("*.svg") if "-dark" not in p.name]
        if drawings:
            newest = max(drawings, key=lambda path: path.name)
            text = newest.read_text(encoding="utf-8")
            yield _figure(text, f"What the model imagined: {newest}.", "wide")


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return read_manifest(folder)
    except WorldFluxError:
        return {}


def _facts_table(folder: Path, manifest: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in _facts(folder, manifest).items()
        if value not in (None, "")
    )
    return f"<table>{rows}</table><p></p>"


def _facts(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    environment, best = manifest.get("environment") or {}, manifest.get("best") or {}
    software, machine = manifest.get("software") or {}, manifest.get("machine") or {}
    updated = manifest.get("updated_at")
    ended = time.strftime("%Y-%m-%d", time.gmtime(updated)) if updated else None
    amounts = [counted(manifest.get("global_step", 0), "update", ",")]
    amounts.append(counted(manifest.get("env_steps", 0), "environment step", ","))
    if isinstance(manifest.get("wall_s"), int | float):
        amounts.append(duration(manifest["wall_s"]))
    random = manifest.get("random_return_mean")
    return {
        "run": folder,
        "environment": environment.get("id"),
        "model": f"{manifest.get('model')}, {manifest.get('parameters') or 0:,} parameters",
        "seed": (manifest.get("seeds") or {}).get("run"),
        "status": ", ".join(filter(None, (manifest.get("status"), ended))),
        "trained": ", ".join(amounts),
        "best return": _return(best),
        "random policy's return": f"{random:.4g}" if isinstance(random, int | float) else None,
        "degraded": ", ".join(manifest.get("degraded_modes") or []) or "nothing",
        "versions": ", ".join(f"{name} {version}" for name, version in software.items()),
        "machine": ", ".join(
            f"{name} {value}" for name, value in machine.items() if value is not None
        ),
        "configuration": manifest.get("config_hash"),
        "weights (sha256)": manifest.get("weights_sha256"),
    }


def _return(entry: dict[str, Any]) -> str | None:
    if not isinstance(entry.get("return_mean"), int | float):
        return None
    episodes = counted(entry.get("episodes") or 0, "episode")
    spread = f" ± {entry['return_std']:.4g}" if entry.get("return_std") is not None else ""
    return f"{entry['return_mean']:.4g}{spread} over {episodes}, at update {entry.get('step', 0):,}"


def _commands(known: Known, verdict: Verdict) -> str:
    """What made each run, a line for every start and resume, and what verified them."""
    lines = []
    for folder, manifest in known:
        for session in manifest.get("sessions") or [manifest]:
            command = session.get("command")
            words = command if isinstance(command, list) else ["worldflux", "train"]
            lines.append(f"{shlex.join(str(word) for word in words)}  # {folder}")
    targets = " ".join(f"--target {shlex.quote(str(folder))}" for folder, _ in known)
    lines.append(f"worldflux verify {targets} --mode {verdict.mode}")
    return "\n".join(lines)
