"""Everything that the page shows of one run folder, read incrementally and never written."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldflux.dashboard.contained import list_contained, open_contained
from worldflux.dashboard.history import Curves, EvaluationHistory, Recent, clean_row
from worldflux.dashboard.pictures import has_frames, list_imaginations, list_videos
from worldflux.dashboard.settings import comparable, flatten, group_of
from worldflux.dashboard.summary import (
    ENDED,
    TrainerProcess,
    find_trainer,
    list_messages,
    summarize,
)
from worldflux.layout import CHECKPOINTS, HEARTBEAT, RUN_MANIFEST
from worldflux.run_log import (
    EVALUATIONS,
    METRICS,
    Mark,
    Row,
    parse_row,
    read_chunk,
    read_tail,
    sample_rows,
)

MAX_MANIFEST_BYTES = 4 << 20
# A longer log is sampled on the first read: reading 8 MiB takes about a quarter of a second.
FULL_READ_BYTES = 8 << 20
SAMPLE_WINDOWS = 400
SAMPLE_WINDOW_BYTES = 8 << 10
# Of a run whose curves nobody has asked for, a longer log is read at its end only.
SUMMARY_READ_BYTES = 512 << 10
TAIL_BYTES = 64 << 10
SECONDS_BETWEEN_READS = 0.2


class RunReader:
    """One run folder; safe to use from several threads."""

    def __init__(self, run_id: str, folder: Path) -> None:
        self.run_id = run_id
        self.folder = folder
        self.label = folder.name
        self._lock = threading.Lock()
        self._read_at = float("-inf")
        self._manifest: dict[str, Any] = {}
        self._manifest_problem: str | None = None
        self._heartbeat: dict[str, Any] = {}
        self._trainer: TrainerProcess | None = None
        self._has_curves = False
        self._tail_mark = Mark()
        self._generation = 0
        self._reset_metrics()
        self._reset_evaluations()

    def _reset_metrics(self) -> None:
        self._generation += 1000  # also past what merging and rewinding count
        self._curves = Curves(self._generation)
        self._recent = Recent()
        self._metrics_mark = Mark()
        self._sampled = False

    def _reset_evaluations(self) -> None:
        self._evaluations = EvaluationHistory()
        self._evaluations_mark = Mark()

    def summary(self) -> dict[str, Any]:
        """The few numbers of the run list and the status line."""
        with self._lock:
            self._refresh()
            return self._summary(self._details())

    def detail(self) -> dict[str, Any]:
        """The summary, the configuration, the last messages, the videos, what was imagined."""
        with self._lock:
            self._refresh()
            details = self._details()
            return {**self._summary(details), **details, "configuration": flatten(self._manifest)}

    def series(
        self, names: Sequence[str], generation: int = -1, since: int = 0, known: int = 0
    ) -> dict[str, Any]:
        """The curves of some metrics (see `Curves.to_json`), and every metric's name if new.

        The asker has the buckets before `since` of that `generation`, and `known` names.
        """
        with self._lock:
            self._has_curves = True
            self._refresh()
            since = since if generation == self._curves.generation else 0
            answer = {
                "run": self.run_id,
                "version": self._version(),
                "sampled": self._sampled,
                "dropped": len(self._curves.dropped),
                **self._curves.to_json(names, since),
            }
            if since == 0 or known != len(self._curves.names):
                answer["names"] = list(self._curves.names)
            return answer

    def evaluations(self) -> dict[str, Any]:
        """Every evaluation, and the best of them."""
        with self._lock:
            self._refresh()
            rows, best = self._evaluations.rows, self._evaluations.best
            return {"run": self.run_id, "rows": rows, "best": best}

    def settings(self) -> dict[str, str]:
        """The settings that tell runs apart, as (dotted name, text)."""
        with self._lock:
            self._refresh()
            return comparable(self._manifest)

    def _version(self) -> str:
        """Changes with every row of the log."""
        mark = self._metrics_mark if self._has_curves else self._tail_mark
        return f"{mark.inode}-{mark.offset}"

    def _details(self) -> dict[str, Any]:
        checkpoints = list_contained(self.folder, CHECKPOINTS, directories=True)
        broken = self._recent.non_finite
        return {
            "messages": list_messages(self._manifest, self._evaluations, broken, checkpoints),
            "videos": list_videos(self.folder),
            "imaginations": list_imaginations(self.folder),
            "has_gameplay": has_frames(self.folder),
        }

    def _summary(self, details: dict[str, Any]) -> dict[str, Any]:
        summary = summarize(
            self._manifest, self._recent, self._evaluations, self._trainer, self._heartbeat
        )
        if not self.folder.is_dir():
            summary["status"] = "gone"
        shown = json.dumps([self._manifest, details], default=str).encode("ascii")
        return {
            "id": self.run_id,
            "label": self.label,
            "folder": str(self.folder),
            "manifest_problem": self._manifest_problem,
            "detail_version": hashlib.sha256(shown).hexdigest()[:12],
            "version": self._version(),
            "group": group_of(self._manifest),
            **summary,
        }

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at < SECONDS_BETWEEN_READS:
            return
        self._read_manifest()
        self._heartbeat = _read_object(self.folder, HEARTBEAT) or {}
        # The lock of an ended run is left alone: a trainer about to resume it may want that now.
        has_ended = self._manifest.get("status") in ENDED
        self._trainer = None if has_ended else find_trainer(self.folder)
        self._read_metrics()
        self._read_evaluations()
        self._read_at = time.monotonic()

    def _read_manifest(self) -> None:
        self._manifest_problem = None
        if RUN_MANIFEST not in {entry.name for entry in list_contained(self.folder)}:
            # The last one stays in sight when the folder is removed.
            self._manifest = {} if self.folder.is_dir() else self._manifest
            return
        manifest = _read_object(self.folder, RUN_MANIFEST)
        if manifest is None:  # the last good one stays in sight
            self._manifest_problem = f"{RUN_MANIFEST} is not a JSON object"
        else:
            self._manifest = manifest

    def _read_metrics(self) -> None:
        try:
            with open_contained(self.folder, METRICS) as file:
                status = os.fstat(file.fileno())
                if not self._has_curves and status.st_size > SUMMARY_READ_BYTES:
                    mark = Mark(status.st_ino, status.st_size)
                    if mark != self._tail_mark:
                        self._tail_mark, self._recent = mark, Recent()
                        self._take_rows(read_tail(file.fileno(), TAIL_BYTES), curves=False)
                    return
                self._has_curves = True
                if self._tail_mark.inode and not self._metrics_mark.inode:
                    self._reset_metrics()  # the end of the log, already read, comes again
                if self._metrics_mark.inode == 0 and status.st_size > FULL_READ_BYTES:
                    self._sampled = True
                    rows, self._metrics_mark = sample_rows(
                        file.fileno(), SAMPLE_WINDOWS, SAMPLE_WINDOW_BYTES
                    )
                    self._take_rows(rows)
                at_end = False
                while not at_end:
                    chunk = read_chunk(file.fileno(), self._metrics_mark)
                    if chunk.replaced:
                        self._reset_metrics()
                    self._take_rows(chunk.rows)
                    self._metrics_mark, at_end = chunk.mark, chunk.at_end
        except FileNotFoundError:
            if self._metrics_mark.inode and self.folder.is_dir():
                self._reset_metrics()

    def _take_rows(self, rows: list[Row], curves: bool = True) -> None:
        for raw in rows:
            if (row := clean_row(raw)) is not None:
                self._recent.add(row)
                if curves:
                    self._curves.add(row)

    def _read_evaluations(self) -> None:
        try:
            with open_contained(self.folder, EVALUATIONS) as file:
                at_end = False
                while not at_end:
                    chunk = read_chunk(file.fileno(), self._evaluations_mark)
                    if chunk.replaced:
                        self._reset_evaluations()
                    for row in chunk.rows:
                        self._evaluations.add(row)
                    self._evaluations_mark, at_end = chunk.mark, chunk.at_end
        except FileNotFoundError:
            if self.folder.is_dir():
                self._reset_evaluations()


def _read_object(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in a file of a run folder, or None."""
    try:
        with open_contained(folder, name) as file:
            return parse_row(file.read(MAX_MANIFEST_BYTES))
    except FileNotFoundError:
        return None
