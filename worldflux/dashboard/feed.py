"""What a page has not seen yet, as server-sent events that say where to go on after a break.

The feed keeps no queue: its only state is the page's place in each log, so a page that was away
asks from its own place and gets every row since, and a slow one costs no memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from worldflux.dashboard.contained import open_contained
from worldflux.dashboard.cursor import format_cursor
from worldflux.dashboard.discovery import RunCollection
from worldflux.dashboard.history import LogRow, clean_evaluation, clean_row
from worldflux.dashboard.jsonl import Chunk, Mark, read_chunk, to_strict_json
from worldflux.dashboard.run_reader import EVALUATIONS_FILE, METRICS_FILE, RunReader

EVENT_BYTES = 128 << 10
# A page further behind than this reloads the decimated history instead.
MAX_BACKLOG_BYTES = 4 << 20


@dataclass(frozen=True)
class Event:
    """One server-sent event; `cursor` becomes its id."""

    name: str
    data: dict[str, Any]
    cursor: str

    def encode(self) -> bytes:
        """The event on the wire."""
        head = f"event: {self.name}\nid: {self.cursor}\ndata: ".encode("ascii")
        return head + to_strict_json(self.data) + b"\n\n"


class EventFeed:
    """The events of one page: summaries of all runs, new rows of those that its cursor names."""

    def __init__(self, runs: RunCollection, marks: dict[str, tuple[Mark, Mark]]) -> None:
        self._runs = runs
        self._marks = dict(marks)
        self._summaries: dict[str, bytes] = {}

    def poll(self) -> Iterator[Event]:
        """Everything new since the last poll: rows before the summary that counts them."""
        readers = self._runs.readers()
        present = {reader.run_id for reader in readers}
        for run_id in [run_id for run_id in self._summaries if run_id not in present]:
            del self._summaries[run_id]
            self._marks.pop(run_id, None)
            yield self._event("gone", {"id": run_id})
        for reader in readers:
            yield from self._rows(reader)
            summary = reader.summary()
            encoded = to_strict_json(summary)
            if self._summaries.get(reader.run_id) != encoded:
                self._summaries[reader.run_id] = encoded
                yield self._event("run", summary)

    def _event(self, name: str, data: dict[str, Any]) -> Event:
        cursor = ",".join(format_cursor(run_id, *marks) for run_id, marks in self._marks.items())
        return Event(name, data, cursor)

    def _rows(self, reader: RunReader) -> Iterator[Event]:
        run_id = reader.run_id
        if run_id not in self._marks:
            return
        read_bytes = 0
        while read_bytes <= MAX_BACKLOG_BYTES:
            metrics, evaluations = self._marks[run_id]
            new = _read(reader, METRICS_FILE, metrics)
            scored = _read(reader, EVALUATIONS_FILE, evaluations)
            if new.replaced or scored.replaced:
                break
            read_bytes += max(0, new.mark.offset - metrics.offset)
            rows = [row_to_json(row) for raw in new.rows if (row := clean_row(raw)) is not None]
            results = [e for raw in scored.rows if (e := clean_evaluation(raw)) is not None]
            self._marks[run_id] = (new.mark, scored.mark)
            if rows or results:
                yield self._event("rows", {"run": run_id, "rows": rows, "evaluations": results})
            if new.at_end and scored.at_end:
                return
        # The log was replaced, or too much was missed: the page loads it anew.
        del self._marks[run_id]
        yield self._event("reload", {"id": run_id})


def _read(reader: RunReader, name: str, mark: Mark) -> Chunk:
    try:
        with open_contained(reader.folder, name) as fd:
            return read_chunk(fd, mark, EVENT_BYTES)
    except FileNotFoundError:
        return Chunk([], Mark(), at_end=True, replaced=mark.inode != 0)


def row_to_json(row: LogRow) -> dict[str, Any]:
    """A row for the page; values that were NaN or infinite are null."""
    return {
        "step": row.step,
        "env_steps": row.env_steps,
        "wall_s": row.wall_s,
        "values": row.values,
    }
