"""The page's small ASGI application: static files, JSON, server-sent events, videos, pictures.

Every route only reads. No path of the file system is made from a URL but a video's or picture's
name, which must be one plain name of a strict alphabet (see `contained`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from worldflux.dashboard.cursor import parse_cursors
from worldflux.dashboard.discovery import RunCollection
from worldflux.dashboard.feed import EventFeed
from worldflux.dashboard.gameplay import read_frames
from worldflux.dashboard.guard import Access, Guard
from worldflux.dashboard.imagination import FOLDER as IMAGINATION_FOLDER
from worldflux.dashboard.responses import json_response, media_response, page_file
from worldflux.dashboard.run_reader import VIDEO_FOLDER, VIDEO_NAME, RunReader

MAX_THREADS = 8
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
        def read() -> list[dict[str, object]]:
            return [reader.summary() for reader in self.runs.readers()]

        return json_response({"runs": await to_thread.run_sync(read)})

    async def run(self, request: Request) -> Response:
        reader = await self._reader(request)
        return json_response(await to_thread.run_sync(reader.detail))

    async def series(self, request: Request) -> Response:
        reader = await self._reader(request)
        return json_response(await to_thread.run_sync(reader.series))

    async def gameplay(self, request: Request) -> Response:
        reader = await self._reader(request)
        after = request.query_params.get("after", "-1")
        if len(after) > 9 or not after.removeprefix("-").isdecimal() or not after.isascii():
            raise HTTPException(404)
        frames = await to_thread.run_sync(read_frames, reader.folder, int(after))
        return json_response({"frames": frames})

    async def video(self, request: Request) -> Response:
        return await self._media(request, VIDEO_FOLDER)

    async def imagination(self, request: Request) -> Response:
        return await self._media(request, IMAGINATION_FOLDER)

    async def _media(self, request: Request, folder: str) -> Response:
        reader = await self._reader(request)
        name = request.path_params["name"]
        if VIDEO_NAME.fullmatch(name) is None:
            raise HTTPException(404)
        try:
            return media_response(request, reader.folder, folder, name)
        except FileNotFoundError:
            raise HTTPException(404) from None

    async def events(self, request: Request) -> Response:
        headers = {"x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="text/event-stream")
        cursor = request.headers.get("last-event-id") or request.query_params.get("cursor", "")
        stream = self._stream(EventFeed(self.runs, parse_cursors(cursor)))
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")

    async def _stream(self, feed: EventFeed) -> AsyncIterator[bytes]:
        ended = self.streams.enter()
        clock = asyncio.get_running_loop().time
        spoken = clock()
        try:
            yield f"retry: {RECONNECT_MS}\n\n".encode("ascii")
            while not ended.is_set() and not self.closing():
                events = feed.poll()
                # One event at a time, so that a page far behind costs no memory.
                while (event := await to_thread.run_sync(next, events, None)) is not None:
                    yield event.encode()
                    spoken = clock()
                if clock() - spoken > HEARTBEAT_S:
                    yield b": still here\n\n"
                    spoken = clock()
                await self._pause(ended)
        finally:
            self.streams.leave(ended)

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
) -> ASGIApp:
    """The guarded application.

    Args:
        runs: what to show.
        access: the names it answers to.
        refresh_ms: milliseconds between two looks at the run folders for a live page.
        closing: tells the event streams when the server wants to end.
    """
    page = Page(runs, refresh_ms / 1000, closing)
    routes = [
        Route("/", page.index),
        Route("/static/{name}", page.static),
        Route("/api/runs", page.list_runs),
        Route("/api/runs/{run}", page.run),
        Route("/api/runs/{run}/series", page.series),
        Route("/api/runs/{run}/gameplay", page.gameplay),
        Route("/api/events", page.events),
        Route("/runs/{run}/videos/{name}", page.video),
        Route("/runs/{run}/imagination/{name}", page.imagination),
    ]
    app = Starlette(routes=routes, lifespan=_few_threads)
    app.router.redirect_slashes = False
    return Guard(app, access)
