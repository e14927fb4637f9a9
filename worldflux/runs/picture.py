"""The comparison of groups as a picture: intervals, performance profiles, who beats whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from worldflux.evaluation.plots import BASELINE
from worldflux.files import replacing

from .comparison import GroupComparison

_DPI = 200
_LABEL = 28  # characters
_DASHES = ("-", "--", "-.", ":")  # told apart in print as well


def draw_comparison(found: GroupComparison, path: Path) -> Path:
    """Draw a comparison as a file whose kind its name says (`.png`, `.svg`, `.pdf`)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    pairs = len(found.improvements)
    height = 2.4 + 0.4 * max(len(found.groups), pairs)
    figure = Figure(figsize=(12.0, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3 if pairs else 2, squeeze=False)[0]
    _draw_scores(panels[0], found)
    _draw_profiles(panels[1], found)
    if pairs:
        _draw_improvements(panels[2], found)
    for axes in panels:
        axes.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix.removeprefix(".") or "png")
    return path


def _draw_scores(axes: Any, found: GroupComparison) -> None:
    names = [group.name for group in found.groups]
    labels = [_short(name) for name in names]
    for row, name in enumerate(names):
        _interval(axes, row, found.intervals[name], f"C{row}")
    axes.set_yticks(range(len(names)), labels)
    axes.invert_yaxis()
    axes.set_xlabel(f"interquartile mean, {found.unit}")


def _draw_profiles(axes: Any, found: GroupComparison) -> None:
    levels, profiles = found.profiles()
    for row, (name, (share, low, high)) in enumerate(profiles.items()):
        axes.step(levels, share, _DASHES[row % len(_DASHES)], color=f"C{row}", label=_short(name))
        axes.fill_between(levels, low, high, color=f"C{row}", alpha=0.15, linewidth=0, step="pre")
    axes.set_xlabel(f"{found.unit} t")
    axes.set_ylabel("share of runs above t")
    axes.legend(fontsize="small")


def _draw_improvements(axes: Any, found: GroupComparison) -> None:
    labels = [f"{_short(first)}\n> {_short(second)}" for first, second in found.improvements]
    for row, interval in enumerate(found.improvements.values()):
        _interval(axes, row, interval, BASELINE)
    axes.axvline(0.5, color=BASELINE, linestyle="--", linewidth=1)
    axes.set_xlim(-0.02, 1.02)
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("probability of improvement")


def _interval(axes: Any, row: int, interval: Any, colour: str) -> None:
    if interval.low is not None:
        axes.plot([interval.low, interval.high], [row, row], color=colour, linewidth=5, alpha=0.4)
    axes.plot([interval.value], [row], marker="o", color=colour)


def _short(name: str) -> str:
    """A name that leaves room for the panel."""
    return name if len(name) <= _LABEL else f"...{name[3 - _LABEL :]}"
