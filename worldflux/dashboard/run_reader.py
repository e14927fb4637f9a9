"""Everything that the page shows of one run folder, read incrementally and never written."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

from worldflux.dashboard.contained import Entry, list_contained, open_contained
from worldflux.dashboard.cursor import format_cursor
from worldflux.dashboard.gameplay import newest_frame
from worldflux.dashboard.history import EvaluationHistory, MetricsHistory, clean_row
from worldflux.dashboard.imagination import list_imaginations, read_imagination
from worldflux.dashboard.jsonl import (
    Mark,
    Row,
    parse_row,
    read_chunk,
    sample_rows,
    to_strict_json,
)
from worldflux.dashboard.messages import list_messages
from worldflux.dashboard.summary import ENDED, flatten, summarize
from worldflux.dashboard.trainer_process import TrainerProcess, find_trainer

MAX_MANIFEST_BYTES = 4 << 20
MAX_VIDEOS = 200
VIDEO_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}\.(?:mp4|webm|gif|png)")
# A longer file is sampled on the first read: reading 16 MiB takes about half a second.
FULL_READ_BYTES = 16 << 20
SAMPLE_WINDOWS = 512
SAMPLE_WINDOW_BYTES = 8 << 10
# All series of one answer together: keeps it below 1 MiB at about 35 bytes a point.
SERIES_POINT_BUDGET = 24_000
SECONDS_BETWEEN_READS = 0.2

METRICS_FILE = "metrics.jsonl"
EVALUATIONS_FILE = "eval.jsonl"
MANIFEST_FILE = "run_manifest.json"
VIDEO_FOLDER = "videos"
CHECKPOINT_FOLDER = "checkpoints"


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
        self._trainer: TrainerProcess | None = None
        self._reset_metrics()
        self._reset_evaluations()
        self._series_answer: tuple[tuple[Mark, Mark], bytes] | None = None

    def _reset_metrics(self) -> None:
        self._metrics = MetricsHistory()
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
                "imagination": read_imagination(self.folder),
                "has_gameplay": newest_frame(self.folder) is not None,
            }

    def series(self) -> bytes:
        """Every chart's data as strict JSON below about 1 MiB, and the cursor to go on from."""
        with self._lock:
            self._refresh()
            marks = (self._metrics_mark, self._evaluations_mark)
            if self._series_answer is None or self._series_answer[0] != marks:
                answer = {
                    "run": self.run_id,
                    "cursor": format_cursor(self.run_id, *marks),
                    "rows": self._metrics.rows,
                    "sampled": self._sampled,
                    "dropped_series": self._metrics.dropped_series,
                    "non_finite": self._metrics.non_finite,
                    "series": self._metrics.to_json(SERIES_POINT_BUDGET),
                    "evaluations": self._evaluations.rows,
                    "best": self._evaluations.best,
                }
                self._series_answer = (marks, to_strict_json(answer))
            return self._series_answer[1]

    def _summary(self) -> dict[str, Any]:
        summary = summarize(self._manifest, self._metrics, self._evaluations, self._trainer)
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
            **summary,
        }

    def _videos(self) -> list[Entry]:
        videos = list_contained(self.folder, VIDEO_FOLDER)
        return [video for video in videos if VIDEO_NAME.fullmatch(video.name)][-MAX_VIDEOS:]

    def _messages(self) -> list[dict[str, Any]]:
        checkpoints = list_contained(self.folder, CHECKPOINT_FOLDER, directories=True)
        return list_messages(
            self._manifest, self._evaluations, self._metrics.non_finite, checkpoints
        )

    def _refresh(self) -> None:
        if time.monotonic() - self._read_at < SECONDS_BETWEEN_READS:
            return
        self._read_manifest()
        # An ended run is not asked for its lock: a trainer about to resume it may want that now.
        has_ended = self._manifest.get("status") in ENDED
        self._trainer = None if has_ended else find_trainer(self.folder)
        self._read_metrics()
        self._read_evaluations()
        self._read_at = time.monotonic()

    def _read_manifest(self) -> None:
        try:
            with open_contained(self.folder, MANIFEST_FILE) as fd:
                data = os.pread(fd, MAX_MANIFEST_BYTES, 0)
        except FileNotFoundError:
            self._manifest, self._manifest_problem = {}, None
            return
        manifest = parse_row(data)
        # The last good one stays in sight while the file cannot be read.
        self._manifest = self._manifest if manifest is None else manifest
        problem = f"{MANIFEST_FILE} is not a JSON object"
        self._manifest_problem = problem if manifest is None else None

    def _read_metrics(self) -> None:
        try:
            with open_contained(self.folder, METRICS_FILE) as fd:
                is_new = self._metrics_mark.inode == 0
                if is_new and os.fstat(fd).st_size > FULL_READ_BYTES:
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
            self._reset_metrics()

    def _take_metrics(self, rows: list[Row], mark: Mark) -> None:
        for row in rows:
            cleaned = clean_row(row)
            if cleaned is not None:
                self._metrics.add(cleaned)
        self._metrics_mark = mark

    def _read_evaluations(self) -> None:
        try:
            with open_contained(self.folder, EVALUATIONS_FILE) as fd:
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
            self._reset_evaluations()
