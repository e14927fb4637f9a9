"""The return curve of a run as a picture: PNG for a look, SVG for a paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

AGENT, RANDOM = "#0067a8", "#7a808a"
DPI = 200


def plot_returns(rows: Sequence[dict[str, Any]], path: Path, title: str = "") -> Path:
    """Draw evaluation returns (mean and spread) over environment steps, next to random's mean.

    Writes the PNG, and an SVG next to it.

    Args:
        rows: rows of eval.jsonl.
        path: the PNG to write.
        title: what it is of, e.g. environment, model and seed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.0), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    draw_returns(figure.add_subplot(), rows, title)
    path.parent.mkdir(parents=True, exist_ok=True)
    for kind in ("svg", "png"):
        target = path.with_suffix(f".{kind}")
        partial = target.with_name(f".{target.name}.tmp")
        metadata = {"Date": None} if kind == "svg" else None
        figure.savefig(partial, format=kind, metadata=metadata)
        partial.replace(target)
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
    """The curve into matplotlib axes; a row without a return is left out.

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
        axes.axhline(random[-1], color=RANDOM, linestyle="--", label="random policy")
    axes.set_xlabel("updates" if rests else "environment steps")
    axes.set_ylabel("evaluation return (sum of rewards)")
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
