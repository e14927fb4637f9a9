"""Everything that the page shows of one run folder, read incrementally and never written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from worldflux.dashboard.contained import Entry, list_contained, open_contained
from worldflux.dashboard.curves import Curves
from worldflux.dashboard.gameplay import newest_frame
from worldflux.dashboard.history import EvaluationHistory, Recent, clean_rows
from worldflux.dashboard.imagination import list_imaginations
from worldflux.dashboard.messages import list_messages
from worldflux.dashboard.settings import comparable, flatten, group_of
from worldflux.dashboard.summary import ENDED, summarize
from worldflux.dashboard.trainer_process import TrainerProcess, find_trainer
from worldflux.layout import CHECKPOINTS, EVALUATIONS, HEARTBEAT, METRICS, RUN_MANIFEST, VIDEOS
from worldflux.run_log import Mark, Row, parse_row, read_chunk, read_tail, sample_rows

MAX_MANIFEST_BYTES = 4 << 20
MAX_VIDEOS = 200
VIDEO_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(?:mp4|webm|gif|png)")
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
            return self._summary()

    def detail(self) -> dict[str, Any]:
        """The summary, the configuration, the last messages, the videos, what was imagined."""
        with self._lock:
            self._refresh()
            summary = self._summary()
            return {
                **summary,
                "configuration": flatten(self._manifest),
                "messages": self._messages(),
                "videos": [
                    {"name": video.name, "size_bytes": video.size_bytes, "time": video.modified}
                    for video in self._videos()
                ],
                "imaginations": list_imaginations(self.folder),
                "has_gameplay": newest_frame(self.folder) is not None,
            }

    def series(
        self, names: Sequence[str], generation: int = -1, since: int = 0, known: int = 0
    ) -> dict[str, Any]:
        """The curves of some metrics (see `Curves.to_json`), and every metric's name if new.

        Args:
            generation: what the reader has; another one than the present begins anew.
            since: the bucket to go on from, where the generation holds.
            known: how many names the reader knows.
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

    def comparable(self) -> dict[str, str]:
        """The settings that tell runs apart, as (dotted name, text)."""
        with self._lock:
            self._refresh()
            return comparable(self._manifest)

    def _version(self) -> str:
        """Changes with every row of the log."""
        mark = self._metrics_mark if self._has_curves else self._tail_mark
        return f"{mark.inode}-{mark.offset}"

    def _summary(self) -> dict[str, Any]:
        summary = summarize(
            self._manifest, self._recent, self._evaluations, self._trainer, self._heartbeat
        )
        if not self.folder.is_dir():
            summary["status"] = "gone"
        shown = [
            self._manifest,
            self._videos(),
            self._messages(),
            list_imaginations(self.folder),
            newest_frame(self.folder) is not None,
        ]
        digest = hashlib.sha256(json.dumps(shown, default=str).encode("ascii")).hexdigest()[:12]
        return {
            "id": self.run_id,
            "label": self.label,
            "folder": str(self.folder),
            "manifest_problem": self._manifest_problem,
            "detail_version": digest,
            "version": self._version(),
            "group": group_of(self._manifest),
            **summary,
        }

    def _videos(self) -> list[Entry]:
        videos = list_contained(self.folder, VIDEOS)
        return [video for video in videos if VIDEO_NAME.fullmatch(video.name)][-MAX_VIDEOS:]

    def _messages(self) -> list[dict[str, Any]]:
        checkpoints = list_contained(self.folder, CHECKPOINTS, directories=True)
        return list_messages(
            self._manifest, self._evaluations, self._recent.non_finite, checkpoints
        )

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at < SECONDS_BETWEEN_READS:
            return
        self._read_manifest()
        self._heartbeat = _read_object(self.folder, HEARTBEAT) or {}
        # An ended run is not asked for its lock: a trainer about to resume it may want that now.
        has_ended = self._manifest.get("status") in ENDED
        self._trainer = None if has_ended else find_trainer(self.folder)
        self._read_metrics()
        self._read_evaluations()
        self._read_at = time.monotonic()

    def _read_manifest(self) -> None:
        if RUN_MANIFEST not in {entry.name for entry in list_contained(self.folder)}:
            self._manifest_problem = None
            # The last one stays in sight when the folder is removed.
            self._manifest = self._manifest if not self.folder.is_dir() else {}
            return
        manifest = _read_object(self.folder, RUN_MANIFEST)
        # The last good one stays in sight while the file cannot be read.
        self._manifest = self._manifest if manifest is None else manifest
        problem = f"{RUN_MANIFEST} is not a JSON object"
        self._manifest_problem = problem if manifest is None else None

    def _read_metrics(self) -> None:
        try:
            with open_contained(self.folder, METRICS) as fd:
                status = os.fstat(fd)
                if not self._has_curves and status.st_size > SUMMARY_READ_BYTES:
                    self._read_end(fd, Mark(status.st_ino, status.st_size))
                    return
                self._has_curves = True
                if self._tail_mark.inode and not self._metrics_mark.inode:
                    self._reset_metrics()  # what was read of its end only comes again
                if self._metrics_mark.inode == 0 and status.st_size > FULL_READ_BYTES:
                    rows, mark = sample_rows(fd, SAMPLE_WINDOWS, SAMPLE_WINDOW_BYTES)
                    self._sampled = True
                    self._take_metrics(rows, mark)
                at_end = False
                while not at_end:
                    chunk = read_chunk(fd, self._metrics_mark)
                    if chunk.replaced:
                        self._reset_metrics()
                    self._take_metrics(chunk.rows, chunk.mark)
                    at_end = chunk.at_end
        except FileNotFoundError:
            if self._metrics_mark.inode and self.folder.is_dir():
                self._reset_metrics()

    def _read_end(self, fd: int, mark: Mark) -> None:
        """What the summary needs of a long log whose curves nobody looks at."""
        if mark == self._tail_mark:
            return
        self._tail_mark, self._recent = mark, Recent()
        for row in clean_rows(read_tail(fd, TAIL_BYTES)):
            self._recent.add(row)

    def _take_metrics(self, rows: list[Row], mark: Mark) -> None:
        for row in clean_rows(rows):
            self._curves.add(row)
            self._recent.add(row)
        self._metrics_mark = mark

    def _read_evaluations(self) -> None:
        try:
            with open_contained(self.folder, EVALUATIONS) as fd:
                at_end = False
                while not at_end:
                    chunk = read_chunk(fd, self._evaluations_mark)
                    if chunk.replaced:
                        self._reset_evaluations()
                    for row in chunk.rows:
                        self._evaluations.add(row)
                    self._evaluations_mark = chunk.mark
                    at_end = chunk.at_end
        except FileNotFoundError:
            if self.folder.is_dir():
                self._reset_evaluations()


def _read_object(folder: Path, name: str) -> dict[str, Any] | None:
    """The JSON object in a file of a run folder, or None."""
    try:
        with open_contained(folder, name) as fd:
            return parse_row(os.pread(fd, MAX_MANIFEST_BYTES, 0))
    except FileNotFoundError:
        return None
