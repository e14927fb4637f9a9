"""A local page that shows frames as they are played, behind the guard of the dashboard."""

from __future__ import annotations

import asyncio
import html
import io
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from worldflux.dashboard.guard import Guard
from worldflux.dashboard.server import listen, server_config

JPEG_QUALITY = 85
_POLL_S = 0.005


class FramePage:
    """Shows each frame `[H, W, 3]` for 1 / `fps` seconds; whoever opens the page sees the newest.

    Attributes:
        url: of the page, on loopback.
    """

    def __init__(self, title: str, fps: float) -> None:
        self._period, self._title = 1.0 / fps, title
        self._jpeg, self._number, self._next = b"", 0, 0.0
        self._watched, self._is_over = threading.Event(), False
        listener = listen()
        self.url = listener.url
        routes = [Route("/", self._index), Route("/frames", self._frames)]
        app = Starlette(routes=routes, middleware=[Middleware(Guard, access=listener.access)])
        self._server = uvicorn.Server(server_config(app))
        sockets = {"sockets": [listener.socket]}
        self._thread = threading.Thread(target=self._server.run, kwargs=sockets, daemon=True)
        self._thread.start()

    def wait_for_viewer(self) -> None:
        """Return once a browser shows the page."""
        while not self._watched.wait(0.2):  # in parts, so that Ctrl+C is heard
            pass

    def show(self, frame: Any) -> None:
        with io.BytesIO() as file:
            Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY)
            self._jpeg = file.getvalue()
        self._number += 1
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self._period

    def close(self) -> None:
        """Let the page keep its last frame, and end the server."""
        self._is_over = self._server.should_exit = True
        self._thread.join()

    async def _index(self, request: Request) -> Response:
        title = html.escape(self._title)
        image = f'<img src="frames" alt="{title}, as it is played">'
        return HTMLResponse(f"<!doctype html><title>{title}</title><h1>{title}</h1>{image}")

    async def _frames(self, request: Request) -> Response:
        self._watched.set()
        kind = "multipart/x-mixed-replace; boundary=frame"
        return StreamingResponse(self._stream(), media_type=kind)

    async def _stream(self) -> AsyncIterator[bytes]:
        """The newest frame, again and again; a part is shown when the next one begins."""
        shown = 0
        while not self._is_over:
            if shown != self._number:
                shown = self._number
                yield b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + self._jpeg + b"\r\n"
            await asyncio.sleep(_POLL_S)
        yield b"--frame--\r\n"
