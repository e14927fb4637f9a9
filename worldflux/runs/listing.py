"""Every run below some folders: a row each, their evaluations, and the settings that differ."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from worldflux.configuration_hash import configuration_of
from worldflux.dashboard.discovery import all_runs
from worldflux.dashboard.run_reader import RunReader
from worldflux.dashboard.settings import INCIDENTAL, flatten
from worldflux.errors import ConfigurationError, RunFolderError
from worldflux.files import finite, require_place, write_text
from worldflux.layout import EVALUATIONS
from worldflux.progress import duration
from worldflux.project.document import shown_path
from worldflux.project.manifest import holds_a_run, read_manifest, sound_manifest
from worldflux.run_log import read_evaluations

# Of the manifest: what was chosen, by whom it was computed. The rest is what became of it.
_CHOSEN = (
    *("model", "environment", "data_mode", "offline_data", "model_config", "training_config"),
    *("resolved_training", "configuration", "seeds", "device", "threads", "machine", "software"),
    "git",
)
_COLUMNS = ("run", "name", "status", "seed", "steps", "best", "last", "time", "tags")


def runs_below(places: Sequence[Path]) -> list[Path]:
    """The run folders at or below some places, each once, however often or in whatever words named.

    Raises:
        RunFolderError: there is none below one of them.
    """
    found: dict[Path, Path] = {}
    for place in places:
        runs = all_runs(place)
        if not runs:
            hint = "name a run, or a folder of runs: worldflux runs list DIR"
            raise RunFolderError("no run here", where=str(place), hint=hint)
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def row_of(folder: Path) -> dict[str, Any]:
    """What the table says of a run; `best` and `last` are mean returns of its evaluations.

    A run whose manifest cannot be read is "unreadable", and `reason` says why.
    """
    summary, manifest = RunReader("", folder).summary(), {}
    try:
        manifest = sound_manifest(folder)
    except RunFolderError as error:
        if holds_a_run(folder):
            summary |= {"status": "unreadable", "reason": error.message}
    logging = manifest.get("configuration", {}).get("logging", {})
    best, last = summary["best_evaluation"], summary["last_evaluation"]
    return {
        "run": shown_path(folder),
        "name": logging.get("name"),
        "tags": logging.get("tags") or [],
        "notes": logging.get("notes"),
        "group": configuration_of(manifest)[:8],
        **{name: summary[name] for name in ("status", "environment", "model", "seed")},
        **{name: summary[name] for name in ("step", "total_steps", "env_steps", "wall_s")},
        "best": best and best["return_mean"],
        "best_step": best and best["step"],
        "last": last and last["return_mean"],
        "reason": summary["reason"],
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as text in columns; a column that no run fills is left out."""
    cells = [{name: _cell(name, row) for name in _COLUMNS} for row in rows]
    names = [name for name in _COLUMNS if any(line[name] for line in cells)]
    lines = [{name: name for name in names}, *cells]
    widths = {name: max(len(line[name]) for line in lines) for name in names}
    return "\n".join("  ".join(line[n].ljust(widths[n]) for n in names).rstrip() for line in lines)


def _cell(name: str, row: Mapping[str, Any]) -> str:
    if name == "steps":
        return f"{row['step'] or 0:,}" + (f"/{row['total_steps']:,}" if row["total_steps"] else "")
    if name == "time":
        return duration(row["wall_s"]) if row["wall_s"] else ""
    value = row[name]
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "" if value is None else str(value)


def differing(folders: Sequence[Path]) -> dict[str, list[str | None]]:
    """The entries that differ between runs, by dotted name: a text for each, None without one."""
    settings = []
    for folder in folders:
        manifest = read_manifest(folder)
        chosen = flatten({n: manifest[n] for n in _CHOSEN if n in manifest})
        settings.append(
            {n: text for n, text in chosen if text != "null"}
        )  # as if it were not there
    names = dict.fromkeys(n for chosen in settings for n in chosen if n not in INCIDENTAL)
    texts = {name: [chosen.get(name) for chosen in settings] for name in names}
    return {name: values for name, values in texts.items() if len(set(values)) > 1}


def evaluations(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Every evaluation of every run, a row each."""
    for folder in folders:
        row = row_of(folder)
        run = {name: row[name] for name in ("run", "name", "group", "environment", "model", "seed")}
        for entry in read_evaluations(folder / EVALUATIONS):
            numbers = ("step", "env_steps", "return_mean", "return_std")
            yield {**run, **{name: entry[name] for name in numbers}}


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows to a file, as its name says: `.csv`, or `.json` for a list of objects.

    Raises:
        ConfigurationError: for another name, or in a folder that is not there.
    """
    require_place(path, "--out")
    if path.suffix == ".json":
        write_text(path, json.dumps(finite(list(rows)), indent=2) + "\n")
    elif path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {k: " ".join(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows
        )
        write_text(path, text.getvalue())
    else:
        hint = f"--out {path.stem or 'runs'}.csv"
        raise ConfigurationError("a table is written as .csv or .json", where=str(path), hint=hint)
