"""The page's ASGI application: its files, JSON, server-sent events, videos and pictures.

Every route only reads, except that of the what-if sessions. The only paths made from a URL are
names of the page's own files, and of pictures and videos, which must match a strict alphabet.
"""

from __future__ import annotations

import asyncio
import json
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from worldflux.dashboard.contained import contained
from worldflux.dashboard.discovery import RunCollection
from worldflux.dashboard.events import PAGE_ID, Audience, EventStreams, to_strict_json
from worldflux.dashboard.guard import Access, Guard
from worldflux.dashboard.pictures import MEDIA_NAMES, read_frames, read_imagination
from worldflux.dashboard.run_reader import RunReader
from worldflux.dashboard.what_if import PLACE, Sessions

MAX_THREADS = 8
MAX_SERIES = 600  # curves of one answer
COMPRESSED_FROM_BYTES = 1024
BODY_TIMEOUT_S = 5.0

# What a system's own table says differs, and a browser runs no script of another type.
mimetypes.add_type("text/javascript", ".js")


class StrictJSON(JSONResponse):
    """JSON without NaN, and in ASCII."""

    def render(self, content: Any) -> bytes:
        """The answer's body."""
        return to_strict_json(content)


@dataclass
class Page:
    """The handlers, over one collection of runs."""

    runs: RunCollection
    audience: Audience
    streams: EventStreams
    sessions: Sessions
    files: StaticFiles

    async def index(self, request: Request) -> Response:
        return await self.files.get_response("index.html", request.scope)

    async def list_runs(self, request: Request) -> Response:
        self.audience.saw(request.query_params.get("page", ""))
        runs = await to_thread.run_sync(self.runs.summaries)
        return StrictJSON({"runs": runs, "again": self.audience.command(runs)})

    async def bye(self, request: Request) -> Response:
        page = request.query_params.get("page", "")
        self.audience.left(page)
        await to_thread.run_sync(self.sessions.leave, page)
        return StrictJSON({})

    async def what_if(self, request: Request) -> Response:
        """Whether there are sessions; of a POST `{"page": ID, ...}` its session's answer."""
        if request.method != "POST":
            return StrictJSON({"refusal": self.sessions.refusal})
        # A form of another web site cannot send this type.
        if request.headers.get("content-type") != "application/json":
            raise HTTPException(415)
        try:
            given = json.loads(await asyncio.wait_for(request.body(), BODY_TIMEOUT_S))
        except (TimeoutError, ClientDisconnect, ValueError, RecursionError):
            raise HTTPException(400) from None
        page = str(given.get("page")) if isinstance(given, dict) else ""
        if not PAGE_ID.fullmatch(page) or not given.keys() & {"run", "moment", "action"}:
            raise HTTPException(400)
        ask = partial(self.sessions.answer, page, given, self._folder_of)
        return StrictJSON(await to_thread.run_sync(ask))

    def _folder_of(self, run_id: str) -> Path | None:
        reader = self.runs.find(run_id)
        return None if reader is None else reader.folder

    async def run(self, request: Request) -> Response:
        reader = await self._reader(request)
        return StrictJSON(await to_thread.run_sync(reader.detail))

    async def evaluations(self, request: Request) -> Response:
        reader = await self._reader(request)
        return StrictJSON(await to_thread.run_sync(reader.evaluations))

    async def series(self, request: Request) -> Response:
        """Curves: `run` is ID, or ID.GENERATION.BUCKET.NAMES; each `name` is a metric's."""
        names, places = (request.query_params.getlist(key) for key in ("name", "run"))
        if len(names) * len(places) > MAX_SERIES:
            raise HTTPException(400)
        answers = []
        for place in places:
            run_id, *numbers = place.split(".")
            reader = await to_thread.run_sync(self.runs.find, run_id)
            if reader is None:
                continue
            known = [_number(word, 400) for word in numbers[:3]]
            answers.append(await to_thread.run_sync(partial(reader.series, names, *known)))
        return StrictJSON({"runs": answers})

    async def gameplay(self, request: Request) -> Response:
        reader = await self._reader(request)
        after = request.query_params.get("after", "-1")
        number = -1 if after == "-1" else _number(after, 404)
        return StrictJSON({"frames": await to_thread.run_sync(read_frames, reader.folder, number)})

    async def errors(self, request: Request) -> Response:
        reader = await self._reader(request)
        name = request.path_params["name"]
        read = await to_thread.run_sync(read_imagination, reader.folder, name)
        if read is None:
            raise HTTPException(404)
        return StrictJSON(read)

    async def media(self, request: Request) -> Response:
        reader = await self._reader(request)
        folder, name = request.path_params["folder"], request.path_params["name"]
        allowed = MEDIA_NAMES.get(folder)
        try:
            if allowed is not None and allowed.fullmatch(name):
                path = contained(reader.folder, folder, name)
                if path.is_file():
                    return FileResponse(path)
        except FileNotFoundError:
            pass
        raise HTTPException(404)

    async def events(self, request: Request) -> Response:
        headers = {"x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="text/event-stream")
        stream = self.streams.stream(request.query_params.get("page", ""))
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")

    async def _reader(self, request: Request) -> RunReader:
        reader = await to_thread.run_sync(self.runs.find, request.path_params["run"])
        if reader is None:
            raise HTTPException(404)
        return reader


def _number(word: str, status: int) -> int:
    if not (word.isascii() and word.isdecimal() and len(word) < 16):
        raise HTTPException(status)
    return int(word)


@asynccontextmanager
async def _few_threads(app: Starlette) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = MAX_THREADS
    yield


def create_app(
    runs: RunCollection,
    access: Access,
    audience: Audience,
    streams: EventStreams,
    sessions: Sessions,
) -> ASGIApp:
    """The application, behind its guard."""
    files = StaticFiles(directory=Path(__file__).parent / "static")
    page = Page(runs, audience, streams, sessions, files)
    packed = [Middleware(GZipMiddleware, minimum_size=COMPRESSED_FROM_BYTES, compresslevel=5)]
    answers = {
        "/": page.index,
        "/api/runs": page.list_runs,
        "/api/runs/{run}": page.run,
        "/api/runs/{run}/evaluations": page.evaluations,
        "/api/runs/{run}/gameplay": page.gameplay,
        "/api/runs/{run}/imagination/{name}": page.errors,
        "/api/series": page.series,
        "/api/bye": page.bye,
    }
    routes = [
        *(Route(path, handler, middleware=packed) for path, handler in answers.items()),
        Mount("/static", files, middleware=packed),
        Route(PLACE, page.what_if, methods=["GET", "POST"]),
        Route("/api/events", page.events),
        Route("/runs/{run}/{folder}/{name}", page.media),
    ]
    app = Starlette(routes=routes, lifespan=_few_threads)
    app.router.redirect_slashes = False
    return Guard(app, access)
