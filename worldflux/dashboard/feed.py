"""What a page has not seen yet, as server-sent events: summaries of the runs, and their end.

The feed carries no rows: a summary says that a log has grown, and the page asks for the buckets of
the curves in sight. So a page that was away has missed nothing, and a slow one costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from worldflux.dashboard.discovery import RunCollection
from worldflux.dashboard.responses import to_strict_json


def encode_event(name: str, data: object) -> bytes:
    """One event on the wire."""
    return f"event: {name}\ndata: ".encode("ascii") + to_strict_json(data) + b"\n\n"


class EventFeed:
    """The events of one page."""

    def __init__(self, runs: RunCollection) -> None:
        self._runs = runs
        self._seen: dict[str, bytes] = {}

    def poll(self) -> Iterator[bytes]:
        """Everything new since the last poll, encoded."""
        readers = self._runs.readers()
        present = {reader.run_id for reader in readers}
        for run_id in [run_id for run_id in self._seen if run_id not in present]:
            del self._seen[run_id]
            yield encode_event("gone", {"id": run_id})
        for reader in readers:
            event = encode_event("run", self._runs.summary(reader))
            if self._seen.get(reader.run_id) != event:
                self._seen[reader.run_id] = event
                yield event
