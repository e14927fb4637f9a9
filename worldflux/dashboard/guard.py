"""Who may ask, and what every answer carries: the outermost layer of the page.

A page on this machine is reachable by every web site that the user visits, through DNS rebinding
or plain cross-origin requests. So the Host header must name this server, an Origin must be its
own, only GET and HEAD exist (and POST for a server that takes bodies), and every answer, errors
included, has a strict content security policy.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_REQUEST_LINE = 8192
HTTP_PORT, HTTPS_PORT = 80, 443
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

SECURITY_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; media-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::([0-9]{1,5}))?", re.ASCII)

HostPort = tuple[str, int]


@dataclass(frozen=True)
class Access:
    """The names this server answers to, its port, a prefix, and the token of an open server.

    `hosts` are the machine's own names, `allowed` those that the user gave for a tunnel or a proxy:
    `name` with every port, `name:port` with that one. Loopback names are always known: no web
    site can have one. `max_body_bytes` is 0 for a server that only reads; a path
    that ends with `takes_bodies_at` takes one.
    """

    hosts: tuple[str, ...]
    port: int
    token: str | None = None
    base_path: str = ""
    allowed: tuple[str, ...] = ()
    max_body_bytes: int = 0
    takes_bodies_at: str = ""

    @property
    def cookie(self) -> str:
        """The cookie that carries the token; cookies know no ports, so the name does."""
        return f"worldflux_{self.port}"

    def allows(self, host: HostPort) -> bool:
        """Whether the user gave this (name, port)."""
        return host[0] in self.allowed or f"{host[0]}:{host[1]}" in self.allowed

    def knows(self, host: HostPort) -> bool:
        """Whether a (name, port) is one of this server's."""
        return host[0] in LOOPBACK_NAMES or host[0] in self.hosts or self.allows(host)


class Guard:
    """ASGI middleware: refuses foreign requests, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                # Files are asked for again with their tag; everything else is always new.
                headers.setdefault("cache-control", "no-cache" if "etag" in headers else "no-store")
            await send(message)

        request = Request(scope)
        answer = examine(request, self._access) or self._without_prefix(scope)
        await (answer or self._app)(scope, receive, send_secured)

    def _without_prefix(self, scope: Scope) -> Response | None:
        """Take the base path off the request's, where a proxy passes it on."""
        base = self._access.base_path
        if base and scope["path"] == base:
            return RedirectResponse(f"{base}/")
        if base and scope["path"].startswith(f"{base}/"):
            scope["path"] = scope["path"][len(base) :]
            scope["raw_path"] = scope["raw_path"][len(base) :]
        return None


def examine(request: Request, access: Access) -> Response | None:
    """None for a request that may continue, else the answer that refuses (or redirects) it."""
    headers, raw_path = request.headers, request.scope["raw_path"]
    takes_body = request.method == "POST" and access.max_body_bytes > 0
    takes_body &= request.scope["path"].endswith(access.takes_bodies_at)
    if request.method not in ("GET", "HEAD") and not takes_body:
        return _refuse(405, "this page is read only", allow="GET, HEAD")
    if not raw_path.startswith(b"/"):
        return _refuse(400, "the request target must be a path")
    if len(raw_path) + len(request.scope["query_string"]) > MAX_REQUEST_LINE:
        return _refuse(414, "the request line is too long")
    refusal = _examine_length(headers, access.max_body_bytes if takes_body else None)
    if refusal is not None:
        return refusal
    hosts = headers.getlist("host")
    if len(hosts) != 1:
        return _refuse(400, "exactly one Host header is required")
    host = parse_host(hosts[0])
    if host is None:
        return _refuse(400, "the Host header is malformed")
    # Open to others, it answers to the address that the connection really came to.
    is_own_address = access.token is not None and host[0] == request.scope["server"][0]
    if not access.knows(host) and not is_own_address:
        return _refuse(
            403,
            f"this server does not answer to the name {host[0]}: open it as "
            f"http://127.0.0.1:{access.port}/ (through ssh, forward that port), "
            f"or start it with --allow-host {host[0]}",
        )
    return _examine_site(headers, host, access) or _examine_token(request, access)


def _examine_length(headers: Headers, most: int | None) -> Response | None:
    """Refuse a body that is not expected or too long, before any of it is read."""
    lengths = headers.getlist("content-length")
    if most is None:
        if "transfer-encoding" in headers or any(length != "0" for length in lengths):
            return _refuse(400, "a request has no body here", connection="close")
    elif "transfer-encoding" in headers or len(lengths) != 1:
        return _refuse(411, "a body needs a Content-Length", connection="close")
    elif int(lengths[0]) > most:
        return _refuse(413, f"a body has at most {most:,} bytes here", connection="close")
    return None


def _refuse(status: int, text: str, **headers: str) -> Response:
    return PlainTextResponse(f"{text}\n", status, headers)


def _examine_site(headers: Headers, host: HostPort, access: Access) -> Response | None:
    """Refuse what another web site asks through the user's browser."""
    site, origins = headers.getlist("sec-fetch-site"), headers.getlist("origin")
    # A proxy that rewrites Host leaves Origin as it was; the browser's own word decides then, which
    # no script can set.
    if origins and site != ["same-origin"]:
        scheme, _, rest = origins[0].partition("://")
        origin = parse_host(rest, HTTPS_PORT if scheme == "https" else HTTP_PORT)
        is_same = scheme == "http" and origin == host
        is_allowed = scheme in ("http", "https") and origin is not None and access.allows(origin)
        if len(origins) > 1 or not (is_same or is_allowed):
            name = origin[0] if origin else "NAME"
            return _refuse(
                403,
                "cross-origin requests are refused (for this server's own page behind a proxy, "
                f"start it with --allow-host {name})",
            )
    # Browsers send no Origin with an image or script tag of another site, but they send this.
    is_navigation = headers.getlist("sec-fetch-mode") == ["navigate"]
    if any(word not in ("same-origin", "none") for word in site) and not is_navigation:
        return _refuse(403, "cross-site requests are refused")
    return None


def parse_host(value: str, default_port: int = HTTP_PORT) -> HostPort | None:
    """(lower-case name, port) of a Host header's value; None for anything else."""
    match = _HOST.fullmatch(value.lower())
    if match is None:
        return None
    name, number = match.groups()
    return name, int(number or default_port)


def _examine_token(request: Request, access: Access) -> Response | None:
    if access.token is None or _same(request.cookies.get(access.cookie), access.token):
        return None
    if not _same(request.query_params.get("token"), access.token):
        return _refuse(401, "open the address with ?token=... that the command printed")
    # The redirect takes the token out of the address bar and the history; a relative one, since
    # a proxy may have put a prefix before the path.
    answer = RedirectResponse(".", 303)
    answer.set_cookie(access.cookie, access.token, httponly=True, samesite="lax")
    return answer


def _same(given: str | None, token: str) -> bool:
    return given is not None and hmac.compare_digest(
        given.encode("utf-8", "replace"), token.encode()
    )
