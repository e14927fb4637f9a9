"""Answers in small pieces: a page's own files, JSON, and videos with byte ranges."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from worldflux.dashboard import INSTALL_COMMAND
from worldflux.dashboard.contained import open_contained
from worldflux.dashboard.jsonl import to_strict_json
from worldflux.errors import MissingDependencyError

# One piece fills the connection's write buffer; a client that does not read costs no more.
PIECE_BYTES = 64 << 10

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".png": "image/png",
}
_RANGE = re.compile(r"bytes=(\d{0,15})-(\d{0,15})", re.ASCII)


class PiecewiseResponse(Response):
    """A response whose body goes out in pieces, each only once the one before has been taken."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code}
        await send({**start, "headers": self.raw_headers})
        body = memoryview(self.body)
        for begin in range(0, len(body) if scope["method"] == "GET" else 0, PIECE_BYTES):
            piece = bytes(body[begin : begin + PIECE_BYTES])
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


def json_response(value: Any, status: int = 200) -> Response:
    """`value` (or JSON already written) as strict JSON."""
    body = value if isinstance(value, bytes) else to_strict_json(value)
    return PiecewiseResponse(body, status, media_type="application/json")


@cache
def page_files() -> dict[str, tuple[bytes, str, str]]:
    """The page's files by name, as (content, media type, entity tag), read once.

    Raises:
        MissingDependencyError: plotly, whose script draws the charts, is not installed.
    """
    paths = [p for p in sorted((Path(__file__).parent / "static").iterdir()) if p.is_file()]
    contents = {path.name: path.read_bytes() for path in [*paths, plotly_script()]}
    return {
        name: (
            content,
            MEDIA_TYPES.get(Path(name).suffix, "application/octet-stream"),
            f'"{hashlib.sha256(content).hexdigest()[:20]}"',
        )
        for name, content in contents.items()
    }


def plotly_script() -> Path:
    """The chart library's script inside the installed plotly package (which is not imported).

    Raises:
        MissingDependencyError: when plotly is not installed.
    """
    spec = importlib.util.find_spec("plotly")
    for place in (spec.submodule_search_locations or []) if spec else []:
        script = Path(place) / "package_data" / "plotly.min.js"
        if script.is_file():
            return script
    raise MissingDependencyError(
        "the dashboard draws with plotly, which is not installed", hint=INSTALL_COMMAND
    )


def page_file(request: Request, name: str) -> Response | None:
    """One of the page's own files, or 304 when the browser has it; None when there is none."""
    known = page_files().get(name)
    if known is None:
        return None
    content, media_type, tag = known
    headers = {"etag": tag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return PiecewiseResponse(content, headers=headers, media_type=media_type)


def media_response(request: Request, root: Path, *names: str) -> Response:
    """A file of a run folder, whole or the one byte range asked for.

    Raises:
        FileNotFoundError: there is no such regular file inside `root`.
    """
    with open_contained(root, *names) as fd:
        size = os.fstat(fd).st_size
    headers = {"accept-ranges": "bytes", "cache-control": "no-cache"}
    begin, end, status = 0, size, 200
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is not None and match.group(0) != "bytes=-":
        first, last = match.groups()
        begin = int(first) if first else max(0, size - int(last))
        end = min(size, int(last) + 1) if first and last else size
        if begin >= end:
            return Response(status_code=416, headers={"content-range": f"bytes */{size}"})
        status = 206
        headers["content-range"] = f"bytes {begin}-{end - 1}/{size}"
    headers["content-length"] = str(end - begin)
    media_type = MEDIA_TYPES[Path(names[-1]).suffix]
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    pieces = _pieces(root, names, begin, end)
    return StreamingResponse(pieces, status, headers=headers, media_type=media_type)


async def _pieces(root: Path, names: tuple[str, ...], begin: int, end: int) -> AsyncIterator[bytes]:
    """The bytes of a file; it is opened for each piece, so that a slow client holds no file."""

    def read(offset: int) -> bytes:
        with open_contained(root, *names) as fd:
            return os.pread(fd, min(PIECE_BYTES, end - offset), offset)

    while begin < end:
        piece = await to_thread.run_sync(read, begin)
        if not piece:
            return
        begin += len(piece)
        yield piece
