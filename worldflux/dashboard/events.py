"""Live updates as server-sent events, and which pages are open.

An event carries no rows: a summary says that a log has grown, and the page asks for the buckets of
the curves in sight. So a page that was away has missed nothing, and a slow one costs nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from anyio import to_thread

from worldflux.dashboard.discovery import RunCollection

AWAY_S = 75.0  # browsers let a hidden tab speak once a minute
MAX_PAGES = 256
PAGE_ID = re.compile(r"[0-9a-z]{1,16}", re.ASCII)
MAX_STREAMS = 16
HEARTBEAT_S = 15.0
RECONNECT_MS = 1000


class Audience:
    """The open pages by their own random names, and whether the trainer has ended.

    The page of a training run stays until every open tab knows how the run ended.
    """

    def __init__(self) -> None:
        self.again: str | None = None  # the command that shows the run later, once it has ended
        self._seen: dict[str, float] = {}

    def saw(self, page: str) -> None:
        """A page has asked for something."""
        if PAGE_ID.fullmatch(page) and (page in self._seen or len(self._seen) < MAX_PAGES):
            self._seen[page] = time.monotonic()

    def left(self, page: str) -> None:
        """A page needs nothing more."""
        self._seen.pop(page, None)

    def is_there(self) -> bool:
        """Whether some page may still ask."""
        now = time.monotonic()
        return any(now - seen < AWAY_S for seen in self._seen.values())

    def command(self, runs: list[dict[str, Any]]) -> str | None:
        """The command that shows the runs again, where the trainer and all runs have ended."""
        is_over = all(run["status"] != "running" for run in runs)
        return self.again if is_over else None


class EventFeed:
    """What one page has not seen yet: changed summaries, runs that are gone, the end."""

    def __init__(self, runs: RunCollection, audience: Audience) -> None:
        self._runs = runs
        self._audience = audience
        self._seen: dict[str, bytes] = {}

    def poll(self) -> list[bytes]:
        """Everything new since the last poll, encoded."""
        summaries = self._runs.summaries()
        present = {summary["id"]: _encode("run", summary) for summary in summaries}
        gone = [_encode("gone", {"id": run}) for run in self._seen if run and run not in present]
        again = self._audience.command(summaries) if self._audience.again else None
        if again is not None:
            present[""] = _encode("end", {"again": again})
        new = [event for run, event in present.items() if self._seen.get(run) != event]
        self._seen = present
        return gone + new


def to_strict_json(value: Any) -> bytes:
    """`value` as strict JSON (no NaN, no infinity), in ASCII so that lone surrogates pass too."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


def _encode(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: ".encode("ascii") + to_strict_json(data) + b"\n\n"


class EventStreams:
    """The open streams: the oldest makes room for a new one, and reconnects by itself."""

    def __init__(self, runs: RunCollection, audience: Audience, refresh_s: float) -> None:
        self._runs = runs
        self._audience = audience
        self._refresh_s = refresh_s
        self._open: deque[asyncio.Event] = deque()

    def close(self) -> None:
        """End all streams."""
        while self._open:
            self._open.popleft().set()

    async def stream(self, page: str) -> AsyncIterator[bytes]:
        """The events of one page, until its stream ends or makes room."""
        while len(self._open) >= MAX_STREAMS:
            self._open.popleft().set()
        ended = asyncio.Event()
        self._open.append(ended)
        feed = EventFeed(self._runs, self._audience)
        spoken = time.monotonic()
        try:
            yield f"retry: {RECONNECT_MS}\n\n".encode("ascii")
            while not ended.is_set():
                self._audience.saw(page)
                events = await to_thread.run_sync(feed.poll)
                if not events and time.monotonic() - spoken > HEARTBEAT_S:
                    events = [b": still here\n\n"]
                for event in events:
                    yield event
                    spoken = time.monotonic()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._refresh_s):
                        await ended.wait()
        finally:
            if ended in self._open:
                self._open.remove(ended)
