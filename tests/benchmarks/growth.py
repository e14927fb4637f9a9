"""How the costs of an update and of an action grow with the batch, the sequence, the model and the
environments: a part of `make bench`, and its picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

# Presets of each family, and what is varied of the first of them.
PRESETS = {
    "tdmpc2": ("laptop", "official_1m", "official_5m", "official_19m"),
    "dreamerv3": ("laptop", "official_1m", "official_12m"),
}
VARIED = {
    "batch_size": (8, 16, 32, 64, 128, 256),
    "sequence_length": (4, 8, 16, 32, 64),
    "environments": (1, 2, 4, 8, 16),
}
COSTS = ("parameters", "update_s", "act_s", "memory_mib")
TITLES = {
    "batch_size": "sequences a batch",
    "sequence_length": "steps a sequence",
    "environments": "environments acted in",
    "preset": "parameters",
}
COLOURS = {"tdmpc2": "#0067a8", "dreamerv3": "#c44f00"}
MARKERS = {"tdmpc2": "o", "dreamerv3": "s"}


def growth(measure: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """A point for each family, axis and value; `measure` takes a preset and settings."""
    points: list[dict[str, Any]] = []
    for family, presets in PRESETS.items():
        cases: list[tuple[str, Any, str, dict[str, int]]] = [
            (axis, value, presets[0], {axis: value})
            for axis, values in VARIED.items()
            for value in values
        ]
        cases += [("preset", preset, preset, {}) for preset in presets]
        for axis, value, preset, settings in cases:
            found = measure(f"{family}:{preset}", **settings)
            point = {"family": family, "axis": axis, "value": value}
            points.append(point | {cost: found[cost] for cost in COSTS})
    return points


def draw(points: list[dict[str, Any]], path: Path) -> None:
    """Time of an update (of an action over environments), logarithmic, and memory, by axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 5.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(TITLES), sharex="col", squeeze=False)
    for column, (axis, title) in enumerate(TITLES.items()):
        time = "act_s" if axis == "environments" else "update_s"
        for family in COLOURS:
            rows = [p for p in points if (p["family"], p["axis"]) == (family, axis)]
            at = [row["parameters"] if axis == "preset" else row["value"] for row in rows]
            look = {"color": COLOURS[family], "marker": MARKERS[family], "markersize": 4}
            above, below = panels[0][column], panels[1][column]
            above.loglog(at, [1e3 * row[time] for row in rows], label=family, **look)
            below.semilogx(at, [row["memory_mib"] for row in rows], **look)
        above.set_ylabel(f"ms an {'action' if time == 'act_s' else 'update'}")
        below.set_ylabel("MiB of memory")
        below.set_ylim(bottom=0)
        below.set_xlabel(title)
        if axis != "preset":
            below.set_xticks(VARIED[axis], map(str, VARIED[axis]), minor=False)
            below.minorticks_off()
        for panel in (above, below):
            panel.grid(alpha=0.3)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(COLOURS))
    figure.savefig(path)
