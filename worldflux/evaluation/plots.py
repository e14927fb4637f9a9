"""The return curve of a run as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


def plot_returns(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Draw evaluation returns (mean and spread) over environment steps, beside random's mean.

    Args:
        rows: rows of eval.jsonl.
        path: the PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [row["env_steps"] for row in rows]
    means = [row["return_mean"] for row in rows]
    spreads = [row["return_std"] for row in rows]
    figure = Figure(figsize=(6.4, 4.0), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    low = [mean - spread for mean, spread in zip(means, spreads, strict=True)]
    high = [mean + spread for mean, spread in zip(means, spreads, strict=True)]
    axes.fill_between(steps, low, high, alpha=0.2, linewidth=0)
    axes.plot(steps, means, marker="o", label="agent")
    if rows and rows[-1].get("random_return_mean") is not None:
        axes.axhline(rows[-1]["random_return_mean"], color="grey", linestyle="--", label="random")
    axes.set_xlabel("environment steps")
    axes.set_ylabel("evaluation return")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.tmp")
    figure.savefig(partial, format="png")
    partial.replace(path)
    return path
