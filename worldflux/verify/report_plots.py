"""The plots of a report, each as SVG text: drawn for print, told apart without colour."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from worldflux.evaluation.plots import AGENT, RANDOM, draw_returns, run_title

from .proof import Task
from .verdict import Check

THRESHOLD, MODEL = "#00785a", "#c44f00"
_PREDICTIONS = {"observation model": "observation error", "reward model": "reward error (reward)"}


def svg(draw: Callable[[Any], None], width: float = 6.4, height: float = 3.6) -> str:
    """A figure of one panel, without date and version, so that the same data is the same text."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # Each figure's inner names differ from those of the others in the same page.
    with mpl.rc_context({"svg.hashsalt": f"{getattr(draw, '__name__', '')}{width}"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        text = io.StringIO()
        canvas.print_svg(text, metadata={"Date": None, "Creator": None})
    return text.getvalue()


def learning_curve(manifest: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
    """One run's evaluation returns over environment steps."""
    return svg(lambda axes: draw_returns(axes, rows, run_title(manifest)))


def fresh_returns(checks: Iterable[Check]) -> str | None:
    """Returns of the fresh episodes next to the random policy's and the threshold."""
    found = {check.name: check.numbers for check in checks}
    numbers = found.get("policy", {})
    agent, random = numbers.get("returns"), numbers.get("random_returns")
    if not agent or not random:
        return None
    least = numbers["random_return_mean"] + numbers["difference_lower_bound"]
    threshold = found.get("threshold", {}).get("threshold")

    def draw(axes: Any) -> None:
        for place, values, colour, marker in ((1, agent, AGENT, "o"), (0, random, RANDOM, "s")):
            spread = np.linspace(-0.18, 0.18, len(values))
            axes.plot(values, place + spread, marker, color=colour, alpha=0.5, markersize=4)
            axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
        mean = numbers["return_mean"]
        label = f"mean, and at least this at {1 - numbers['alpha']:.0%} confidence"
        bar = [[max(0.0, mean - least)], [0.0]]
        axes.errorbar([mean], [1.38], xerr=bar, color=AGENT, marker="|", capsize=4, label=label)
        if threshold is not None:
            axes.axvline(threshold, color=THRESHOLD, linestyle="-.", label="threshold")
        axes.set_yticks([0, 1], ["random policy", "agent"])
        axes.set_ylim(-0.5, 1.7)
        axes.set_xlabel("return of an episode (sum of rewards)")
        axes.grid(axis="x", alpha=0.3)
        axes.legend(fontsize="small", loc="lower right")

    return svg(draw, height=2.6)


def open_loop_error(check: Check) -> str | None:
    """Error by horizon of one prediction, next to its two baselines."""
    unit, numbers = _PREDICTIONS.get(check.name), check.numbers
    if unit is None or not isinstance(numbers.get("model"), list):
        return None

    def draw(axes: Any) -> None:
        from matplotlib.ticker import MaxNLocator

        ahead = range(1, len(numbers["model"]) + 1)
        axes.plot(ahead, numbers["model"], color=MODEL, marker="s", markersize=3, label="model")
        axes.plot(ahead, numbers["persistence"], "--", color=RANDOM, label="persistence")
        axes.plot(ahead, numbers["mean"], ":", color=RANDOM, label="mean of the episodes")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(f"steps ahead (mean over {numbers['windows']} starts)")
        axes.set_ylabel(f"mean absolute {unit}")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    return svg(draw, 4.4, 3.0)


def calibration(check: Check, title: str) -> str | None:
    """What was predicted against what came, over the fresh episodes."""
    points = check.numbers.get("points")
    if not points:
        return None

    def draw(axes: Any) -> None:
        said, came = np.array(points).T
        ends = [min(said.min(), came.min()), max(said.max(), came.max())]
        axes.plot(ends, ends, color=RANDOM, linestyle="--", label="as predicted")
        axes.plot(said, came, "o", color=AGENT, alpha=0.4, markersize=3)
        axes.set_xlabel(f"predicted {title}")
        axes.set_ylabel(f"{title} that came")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")

    return svg(draw, 4.4, 3.0)


def published_curve(task: Task) -> str:
    """Each run's returns over frames, next to the published means and deviations.

    Published points may be 100,000 frames apart: what lies between them was not published, so that
    they stay points.
    """
    curve, one = task.curve, len(task.runs) == 1

    def draw(axes: Any) -> None:
        label = f"published: {curve.source.algorithm}, {curve.seeds} seeds, mean and deviation"
        points: dict[str, Any] = {"color": RANDOM, "marker": "o", "capsize": 4, "linestyle": "none"}
        axes.errorbar(curve.steps, curve.mean, curve.sd, label=label, **points)
        longest: float = task.frames
        for index, run in enumerate(task.runs):
            ours = run.points(curve.source)
            name = "our run" if one else f"our {len(task.runs)} runs (seeds {_seeds(task)})"
            line: dict[str, Any] = {"color": AGENT, "alpha": 0.45, "label": None if index else name}
            axes.plot([x for x, _ in ours], [y for _, y in ours], **line)
            longest = max([longest, *(x for x, _ in ours)])
        deviation = None if one else [task.scores.returns.std()]
        ours_at = f"{'our return' if one else 'our mean and deviation'} at {task.frames:,} frames"
        square: dict[str, Any] = {"color": AGENT, "marker": "s", "capsize": 4, "linestyle": "none"}
        mean = [task.scores.returns.mean()]
        axes.errorbar([task.frames], mean, deviation, label=ours_at, **square)
        axes.axhline(task.scores.random, color=MODEL, linestyle="--", label="random policy")
        axes.set_xlim(0, 1.1 * longest)
        axes.set_xlabel("environment frames")
        axes.set_ylabel("return (sum of rewards)")
        axes.set_title(curve.environment, fontsize=10)
        axes.grid(alpha=0.3)
        axes.figure.legend(loc="outside lower center", fontsize="small", ncols=2)

    return svg(draw, 7.2, 4.6)


def _seeds(task: Task) -> str:
    return ", ".join(str(run.seed) for run in task.runs)
