"""What pictures share: colours, returns over steps, errors by horizon; and the return curve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worldflux.files import replacing

# Told apart also by the colour-blind, and in print by their dashes and markers.
AGENT, MODEL, BASELINE = "#0067a8", "#c44f00", "#7a808a"
_DPI = 200


def plot_returns(rows: Sequence[dict[str, Any]], path: Path, title: str = "") -> Path:
    """Draw evaluation returns as a PNG at `path`, and as an SVG next to it.

    Args:
        rows: rows of eval.jsonl.
        title: what it is of, e.g. environment, model and seed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    draw_returns(axes, rows, title)
    finish(axes)
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind, metadata in (("svg", {"Date": None}), ("png", None)):
        with replacing(path.with_suffix(f".{kind}")) as partial:
            figure.savefig(partial, format=kind, metadata=metadata)
        figure.set_layout_engine("none")  # laid out once, which takes longer than drawing
    return path


def run_title(manifest: Mapping[str, Any]) -> str:
    """What a run's pictures are of: "Pendulum-v1, tdmpc2:ci, seed 3"."""
    environment, seeds = manifest.get("environment"), manifest.get("seeds")
    words = [environment.get("id")] if isinstance(environment, Mapping) else []
    words.append(manifest.get("model"))
    if isinstance(seeds, Mapping):
        words.append(f"seed {seeds.get('run')}")
    return ", ".join(str(word) for word in words if word)


def draw_returns(axes: Any, rows: Sequence[dict[str, Any]], title: str = "") -> None:
    """Mean and spread of evaluation returns over environment steps, next to random's mean.

    Over updates where the agent took no step between its evaluations (pretraining).
    """
    scored = [row for row in rows if isinstance(row.get("return_mean"), int | float)]
    rests = len(scored) > 1 and len({row["env_steps"] for row in scored}) == 1
    steps = [row["step" if rests else "env_steps"] for row in scored]
    means = [row["return_mean"] for row in scored]
    spreads = [row.get("return_std") or 0.0 for row in scored]
    low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    band = "one standard deviation over episodes"
    axes.fill_between(steps, low, high, color=AGENT, alpha=0.2, linewidth=0, label=band)
    axes.plot(steps, means, color=AGENT, marker="o", markersize=4, label="agent, mean return")
    random = [
        row["random_return_mean"] for row in scored if row.get("random_return_mean") is not None
    ]
    if random:
        axes.axhline(random[-1], color=BASELINE, linestyle="--", label="random policy")
    axes.set_xlabel("updates" if rests else "environment steps")
    axes.set_ylabel("evaluation return (sum of rewards)")
    axes.set_title(title, fontsize=10)


def draw_errors(axes: Any, numbers: Mapping[str, Any], windows: int, unit: str) -> None:
    """Open-loop error `[H]` by horizon of a model, next to its two baselines."""
    from matplotlib.ticker import MaxNLocator

    ahead = range(1, len(numbers["model"]) + 1)
    axes.plot(ahead, numbers["model"], color=MODEL, marker="s", markersize=3, label="model")
    axes.plot(ahead, numbers["persistence"], "--", color=BASELINE, label="persistence")
    axes.plot(ahead, numbers["mean"], ":", color=BASELINE, label="mean of the episodes")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.set_xlabel(f"steps ahead (mean over {windows} starts)")
    axes.set_ylabel(f"mean absolute {unit}")


def finish(axes: Any) -> None:
    """A grid, and the legend below the only panel of a figure, where it hides nothing."""
    axes.grid(alpha=0.3)
    axes.figure.legend(fontsize="small", loc="outside lower center", ncols=2)
