"""One self-contained HTML page of a verdict: checks, warnings and plots; it loads nothing."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldflux.files import finite, write_text

from .proof import Task
from .verdict import Check, Verdict

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
       color: #1d1d1f; background: #fff; }
h1 { font-size: 1.3rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.word { font-size: 1.6rem; font-weight: 600; }
table { border-collapse: collapse; width: 100%; }
td, th { border-bottom: 1px solid #ddd; padding: .35rem .6rem; text-align: left;
         vertical-align: top; }
.pass { color: #0a7a3b; } .warn { color: #8a5a00; } .fail { color: #b00020; }
.not_applicable { color: #6b6b6b; }
img { max-width: 100%; } pre { overflow-x: auto; background: #f5f5f7; padding: .8rem; }
"""


def write_report(path: Path, verdict: Verdict, tasks: Sequence[Task] = ()) -> Path:
    """Write the page of a verdict; `tasks` are plotted beside their published curves."""
    text = html_report(verdict, tasks)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def html_report(verdict: Verdict, tasks: Sequence[Task] = ()) -> str:
    """The page as text."""
    word = html.escape(verdict.word)
    rows = "".join(_row(check) for check in verdict.checks)
    notes = "".join(f"<li>{html.escape(warning)}</li>" for warning in verdict.warnings)
    plots = "".join(_figure(task) for task in tasks)
    numbers = html.escape(json.dumps(finite(verdict.to_dict()), indent=2))
    tone = "pass" if verdict.passed else "fail"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>worldflux verify: {word}</title><style>{_STYLE}</style></head><body>"
        f"<h1>worldflux verify, {html.escape(verdict.mode)} mode</h1>"
        f'<p class="word {tone}">{word}</p><p>{html.escape(verdict.target)}</p>'
        f"<table><tr><th>check</th><th>result</th><th>found</th></tr>{rows}</table>"
        + (f"<h2>To know</h2><ul>{notes}</ul>" if notes else "")
        + (f"<h2>Learning curves</h2>{plots}" if plots else "")
        + f"<h2>Numbers</h2><pre>{numbers}</pre></body></html>\n"
    )


def _row(check: Check) -> str:
    label = check.status.replace("_", " ")
    return (
        f'<tr><td>{html.escape(check.name)}</td><td class="{check.status}">{label}</td>'
        f"<td>{html.escape(check.detail)}</td></tr>"
    )


def _figure(task: Task) -> str:
    data = base64.b64encode(draw_learning_curve(task)).decode("ascii")
    title = html.escape(f"{task.curve.environment}: runs and published curve")
    return f'<p><img alt="{title}" src="data:image/png;base64,{data}"></p>'


def draw_learning_curve(task: Task) -> bytes:
    """A PNG: each run's returns over frames, beside the published means and deviations.

    Published points may be 100,000 frames apart: what lies between them was not published, so that
    they stand as points.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    curve = task.curve
    figure = Figure(figsize=(7.2, 4.2), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    label = f"published: {curve.source.algorithm}, {curve.seeds} seeds, mean and deviation"
    published: dict[str, Any] = {"color": "grey", "marker": "o", "capsize": 4, "linestyle": "none"}
    axes.errorbar(curve.steps, curve.mean, curve.sd, label=label, **published)
    for index, run in enumerate(task.runs):
        points = run.points(curve.source)
        steps, returns = [x for x, _ in points], [y for _, y in points]
        name = "our run" if len(task.runs) == 1 else f"our {len(task.runs)} runs"
        axes.plot(steps, returns, color="tab:blue", alpha=0.45, label=None if index else name)
    one = len(task.runs) == 1
    axes.errorbar(
        [task.frames],
        [task.scores.returns.mean()],
        None if one else [task.scores.returns.std()],
        color="tab:blue",
        marker="s",
        capsize=4,
        linestyle="none",
        label=f"{'our return' if one else 'our mean and deviation'} at {task.frames:,} frames",
    )
    axes.axhline(task.scores.random, color="tab:red", linestyle="--", label="random policy")
    longest = max([task.frames, *(x for run in task.runs for x, _ in run.points(curve.source))])
    axes.set_xlim(0, 1.1 * longest)
    axes.set_xlabel("environment frames")
    axes.set_ylabel("return")
    axes.set_title(curve.environment)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    buffer = io.BytesIO()
    # No date and no version inside, so that the same verdict gives the same file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
