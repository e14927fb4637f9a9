"""Answers: the page's own files, JSON, and the media of a run folder."""

from __future__ import annotations

import gzip
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from worldflux.dashboard.contained import open_contained

COMPRESSED_FROM_BYTES = 1024

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".pdf": "application/pdf",
    ".mp4": "video/mp4",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".png": "image/png",
}


def to_strict_json(value: Any) -> bytes:
    """`value` as strict JSON (no NaN, no infinity), in ASCII so that lone surrogates pass too."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")


class PageFile(NamedTuple):
    """One of the page's own files, as it is and compressed."""

    content: bytes
    compressed: bytes
    media_type: str
    tag: str


def json_response(request: Request, value: Any) -> Response:
    """`value` as strict JSON, compressed where the browser takes that."""
    body, headers = to_strict_json(value), {}
    if len(body) > COMPRESSED_FROM_BYTES and _takes_gzip(request):
        body, headers = gzip.compress(body, 5), {"content-encoding": "gzip"}
    return Response(body, headers=headers, media_type="application/json")


@cache
def page_files() -> dict[str, PageFile]:
    """The page's files by name, read once."""
    files = {}
    for path in sorted((Path(__file__).parent / "static").iterdir()):
        content = path.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
        media_type = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        files[path.name] = PageFile(content, gzip.compress(content, 9), media_type, tag)
    return files


def page_file(request: Request, name: str) -> Response | None:
    """One of the page's own files, or 304 when the browser has it; None when there is none."""
    known = page_files().get(name)
    if known is None:
        return None
    headers = {"etag": known.tag, "cache-control": "no-cache", "vary": "accept-encoding"}
    if known.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if _takes_gzip(request):
        headers["content-encoding"] = "gzip"
    body = known.compressed if _takes_gzip(request) else known.content
    return Response(body, headers=headers, media_type=known.media_type)


def _takes_gzip(request: Request) -> bool:
    return "gzip" in request.headers.get("accept-encoding", "")


def media_response(root: Path, *names: str) -> Response:
    """A file of a run folder; byte ranges and entity tags are starlette's.

    Raises:
        FileNotFoundError: there is no such regular file inside `root`.
    """
    with open_contained(root, *names):
        path = root.joinpath(*names)
    headers = {"cache-control": "no-cache"}
    return FileResponse(path, headers=headers, media_type=MEDIA_TYPES[path.suffix])
