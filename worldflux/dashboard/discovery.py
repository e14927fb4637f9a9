"""Which folders are runs: one run, a project, or a folder of them."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from worldflux.dashboard.contained import list_contained
from worldflux.dashboard.run_reader import RunReader
from worldflux.dashboard.settings import differences
from worldflux.errors import RunFolderError
from worldflux.layout import EVALUATIONS, METRICS, RUN_MANIFEST

RUN_FILES = {RUN_MANIFEST, METRICS, EVALUATIONS}
OUTPUT_FOLDER = "outputs"
MAX_RUNS = 64
SEARCH_DEPTH, EVERY_DEPTH = 2, 3
SECONDS_BETWEEN_SEARCHES = 2.0


def find_runs(
    place: Path,
    depth: int = SEARCH_DEPTH,
    *,
    most: int = MAX_RUNS,
    known_by: Collection[str] = RUN_FILES,
) -> list[Path]:
    """The run folders at or below `place`, by name; links below it are not followed.

    Args:
        most: runs that are returned at most.
        known_by: names of files of which each makes a folder a run.
    """
    if any(entry.name in known_by for entry in list_contained(place)):
        return [place]
    found: list[Path] = []
    for entry in list_contained(place, directories=True) if depth > 0 else ():
        if not entry.name.startswith(".") and len(found) < most:
            found += find_runs(place / entry.name, depth - 1, most=most, known_by=known_by)
    return found[:most]


def all_runs(place: Path) -> list[Path]:
    """Every run with a manifest at or below `place`; see `find_runs`."""
    return find_runs(place, EVERY_DEPTH, most=sys.maxsize, known_by={RUN_MANIFEST})


def require_runs(places: Sequence[Path]) -> list[Path]:
    """`places` as they are, once each of them is known to hold a run.

    Raises:
        RunFolderError: a place does not exist, or there is no run in it.
    """
    for place in places:
        if not place.is_dir():
            raise RunFolderError(
                f"there is no folder {place}",
                hint="name a run folder (outputs/), a project, or a folder of projects",
            )
        if not find_runs(place):
            raise RunFolderError(
                f"no run in {place}: neither run_manifest.json nor metrics.jsonl",
                hint="start one with: worldflux train",
            )
    return list(places)


class RunCollection:
    """The runs below some places, searched again now and then so that new ones appear."""

    def __init__(self, places: Iterable[Path]) -> None:
        self._places = [place.resolve() for place in places]
        self._readers: dict[str, RunReader] = {}
        self._searched = float("-inf")
        self._differences: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def readers(self) -> list[RunReader]:
        """A reader of every run, in a stable order."""
        with self._lock:
            if time.monotonic() - self._searched > SECONDS_BETWEEN_SEARCHES:
                self._search()
                self._searched = time.monotonic()
            return list(self._readers.values())

    def summaries(self) -> list[dict[str, Any]]:
        """A summary of every run, with the settings in which it differs from the others."""
        return [
            {**reader.summary(), "differs": self._differences.get(reader.run_id, {})}
            for reader in self.readers()
        ]

    def find(self, run_id: str) -> RunReader | None:
        """The reader of that run, or None."""
        return next((reader for reader in self.readers() if reader.run_id == run_id), None)

    def _search(self) -> None:
        shown = {reader.folder for reader in self._readers.values()}
        folders: dict[Path, None] = {}
        for place in self._places:
            # An empty place is a run about to start; a run that was shown stays when it is removed.
            is_shown = place.is_dir() or place in shown
            folders |= dict.fromkeys(find_runs(place) or ([place] if is_shown else []))
        previous, self._readers = self._readers, {}
        for folder, label in _labels(list(folders)[:MAX_RUNS]).items():
            run_id = hashlib.sha256(str(folder).encode("utf-8", "surrogateescape")).hexdigest()[:12]
            reader = previous.get(run_id) or RunReader(run_id, folder)
            reader.label = label
            self._readers[run_id] = reader
        settings = {run_id: reader.settings() for run_id, reader in self._readers.items()}
        self._differences = differences(settings)


def _labels(folders: Sequence[Path]) -> dict[Path, str]:
    """Short names that tell the folders apart: `outputs` says nothing, its project does."""
    short = {f: f.parent.name if f.name == OUTPUT_FOLDER else f.name for f in folders}
    times = Counter(short.values())
    return {
        folder: name if times[name] == 1 else f"{folder.parent.name}/{folder.name}"
        for folder, name in short.items()
    }
