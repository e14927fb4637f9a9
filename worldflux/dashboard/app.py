"""The page's small ASGI application: its files, JSON, server-sent events, videos, pictures.

Every route only reads. No path of the file system is made from a URL but a video's or picture's
name, which must be one plain name of a strict alphabet (see `contained`).
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from worldflux.dashboard.audience import Audience
from worldflux.dashboard.discovery import RunCollection
from worldflux.dashboard.feed import EventFeed, encode_event
from worldflux.dashboard.gameplay import read_frames
from worldflux.dashboard.glossary import GLOSSARY
from worldflux.dashboard.guard import Access, Guard
from worldflux.dashboard.imagination import FILE_NAME, read_imagination
from worldflux.dashboard.responses import json_response, media_response, page_file
from worldflux.dashboard.run_reader import VIDEO_NAME, RunReader
from worldflux.layout import IMAGINATION, VIDEOS

MAX_THREADS = 8
MAX_SERIES = 600  # curves of one answer
MAX_STREAMS = 16
HEARTBEAT_S = 15.0
RECONNECT_MS = 1000
CLOSING_CHECK_S = 0.5


@dataclass
class Streams:
    """The open event streams: the oldest makes room for a new one, and reconnects by itself."""

    limit: int = MAX_STREAMS
    _open: deque[asyncio.Event] = field(default_factory=deque)

    def enter(self) -> asyncio.Event:
        """The new stream's end signal."""
        while len(self._open) >= self.limit:
            self._open.popleft().set()
        ended = asyncio.Event()
        self._open.append(ended)
        return ended

    def leave(self, ended: asyncio.Event) -> None:
        """Give the place back."""
        if ended in self._open:
            self._open.remove(ended)


@dataclass
class Page:
    """The handlers, over one collection of runs."""

    runs: RunCollection
    refresh_s: float
    closing: Callable[[], bool]
    audience: Audience
    streams: Streams = field(default_factory=Streams)

    async def index(self, request: Request) -> Response:
        return self._file(request, "index.html")

    async def static(self, request: Request) -> Response:
        return self._file(request, request.path_params["name"])

    def _file(self, request: Request, name: str) -> Response:
        response = page_file(request, name)
        if response is None:
            raise HTTPException(404)
        return response

    async def list_runs(self, request: Request) -> Response:
        self.audience.saw(request.query_params.get("page", ""))

        def read() -> list[dict[str, object]]:
            return [self.runs.summary(reader) for reader in self.runs.readers()]

        runs = await to_thread.run_sync(read)
        return json_response(request, {"runs": runs, "again": self._again(runs)})

    def _again(self, runs: list[dict[str, Any]]) -> str | None:
        """The command that shows the runs again, where the trainer beside has ended."""
        is_over = all(run["status"] != "running" for run in runs)
        return self.audience.again if is_over else None

    async def glossary(self, request: Request) -> Response:
        return json_response(request, {name: m._asdict() for name, m in GLOSSARY.items()})

    async def bye(self, request: Request) -> Response:
        self.audience.left(request.query_params.get("page", ""))
        return json_response(request, {})

    async def run(self, request: Request) -> Response:
        reader = await self._reader(request)
        return json_response(request, await to_thread.run_sync(reader.detail))

    async def evaluations(self, request: Request) -> Response:
        reader = await self._reader(request)
        return json_response(request, await to_thread.run_sync(reader.evaluations))

    async def series(self, request: Request) -> Response:
        """Curves: `run` is ID, or ID.GENERATION.BUCKET.NAMES; each `name` is a metric's."""
        names = request.query_params.getlist("name")
        asked = request.query_params.getlist("run")
        if len(names) * len(asked) > MAX_SERIES:
            raise HTTPException(400)
        answers = []
        for words in asked:
            run_id, *numbers = words.split(".")
            reader = await to_thread.run_sync(self.runs.find, run_id)
            if reader is None:
                continue
            if not all(word.isascii() and word.isdecimal() and len(word) < 16 for word in numbers):
                raise HTTPException(400)
            read = partial(reader.series, names, *(int(word) for word in numbers[:3]))
            answers.append(await to_thread.run_sync(read))
        return json_response(request, {"runs": answers})

    async def gameplay(self, request: Request) -> Response:
        reader = await self._reader(request)
        after = request.query_params.get("after", "-1")
        if len(after) > 9 or not after.removeprefix("-").isdecimal() or not after.isascii():
            raise HTTPException(404)
        frames = await to_thread.run_sync(read_frames, reader.folder, int(after))
        return json_response(request, {"frames": frames})

    async def errors(self, request: Request) -> Response:
        reader = await self._reader(request)
        name = request.path_params["name"]
        read = await to_thread.run_sync(read_imagination, reader.folder, name)
        if read is None:
            raise HTTPException(404)
        return json_response(request, read)

    async def video(self, request: Request) -> Response:
        return await self._media(request, VIDEOS, VIDEO_NAME)

    async def imagination(self, request: Request) -> Response:
        return await self._media(request, IMAGINATION, FILE_NAME)

    async def _media(self, request: Request, folder: str, allowed: re.Pattern[str]) -> Response:
        reader = await self._reader(request)
        name = request.path_params["name"]
        if allowed.fullmatch(name) is None:
            raise HTTPException(404)
        try:
            return media_response(reader.folder, folder, name)
        except FileNotFoundError:
            raise HTTPException(404) from None

    async def events(self, request: Request) -> Response:
        headers = {"x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="text/event-stream")
        stream = self._stream(EventFeed(self.runs), request.query_params.get("page", ""))
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")

    async def _stream(self, feed: EventFeed, page: str) -> AsyncIterator[bytes]:
        ended = self.streams.enter()
        clock = asyncio.get_running_loop().time
        spoken = clock()
        is_told = False
        try:
            yield f"retry: {RECONNECT_MS}\n\n".encode("ascii")
            while not ended.is_set() and not self.closing():
                self.audience.saw(page)
                events = feed.poll()
                # One event at a time, so that a page far behind costs no memory.
                while (event := await to_thread.run_sync(next, events, None)) is not None:
                    yield event
                    spoken = clock()
                if self.audience.again is not None and not is_told:
                    runs = await to_thread.run_sync(self._statuses)
                    if (again := self._again(runs)) is not None:
                        is_told = True
                        yield encode_event("end", {"again": again})
                if clock() - spoken > HEARTBEAT_S:
                    yield b": still here\n\n"
                    spoken = clock()
                await self._pause(ended)
        finally:
            self.streams.leave(ended)

    def _statuses(self) -> list[dict[str, Any]]:
        return [reader.summary() for reader in self.runs.readers()]

    async def _pause(self, ended: asyncio.Event) -> None:
        """Wait for the next look, or for the end of the stream or the server."""
        left_s = self.refresh_s
        while left_s > 0 and not ended.is_set() and not self.closing():
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, CLOSING_CHECK_S)):
                    await ended.wait()
            left_s -= CLOSING_CHECK_S

    async def _reader(self, request: Request) -> RunReader:
        reader = await to_thread.run_sync(self.runs.find, request.path_params["run"])
        if reader is None:
            raise HTTPException(404)
        return reader


@asynccontextmanager
async def _few_threads(app: Starlette) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = MAX_THREADS
    yield


def create_app(
    runs: RunCollection,
    access: Access,
    *,
    refresh_ms: int = 1000,
    closing: Callable[[], bool] = lambda: False,
    audience: Audience | None = None,
) -> ASGIApp:
    """The guarded application.

    Args:
        runs: what to show.
        access: the names it answers to.
        refresh_ms: milliseconds between two looks at the run folders for a live page.
        closing: tells the event streams when the server wants to end.
        audience: keeps who looks on.
    """
    page = Page(runs, refresh_ms / 1000, closing, audience or Audience())
    routes = [
        Route("/", page.index),
        Route("/static/{name}", page.static),
        Route("/api/runs", page.list_runs),
        Route("/api/runs/{run}", page.run),
        Route("/api/runs/{run}/evaluations", page.evaluations),
        Route("/api/runs/{run}/gameplay", page.gameplay),
        Route("/api/runs/{run}/imagination/{name}", page.errors),
        Route("/api/series", page.series),
        Route("/api/events", page.events),
        Route("/api/glossary", page.glossary),
        Route("/api/bye", page.bye),
        Route("/runs/{run}/videos/{name}", page.video),
        Route("/runs/{run}/imagination/{name}", page.imagination),
    ]
    app = Starlette(routes=routes, lifespan=_few_threads)
    app.router.redirect_slashes = False
    return Guard(app, access)
