"""Who may ask, and what every answer carries: the outermost layer of the page.

A page on this machine is reachable by every web site that the user visits, through DNS rebinding
or plain cross-origin requests. So the Host header must name this server, an Origin must be its
own, nothing but GET and HEAD exists, and no answer, however it failed, goes without a strict
content security policy.
"""

from __future__ import annotations

import hmac
import http.cookies
import re
import urllib.parse
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_REQUEST_LINE = 8192
HTTP_PORT, HTTPS_PORT = 80, 443
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})

SECURITY_HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)

_HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::([0-9]{1,5}))?", re.ASCII)


@dataclass(frozen=True)
class Access:
    """The names this server answers to, its port, a prefix, and the token of an open server.

    `hosts` are the machine's own names, `allowed` those that the user gave for a tunnel or a proxy.
    A name goes with every port, `name:port` with that one. Loopback names are always known: no web
    site can have one, so none can pretend to.
    """

    hosts: frozenset[str]
    port: int
    token: str | None = None
    base_path: str = ""
    allowed: frozenset[str] = frozenset()

    @property
    def cookie(self) -> str:
        """The cookie that carries the token; cookies know no ports, so the name does."""
        return f"worldflux_{self.port}"

    def allows(self, host: tuple[str, int]) -> bool:
        """Whether the user gave this (name, port)."""
        return host[0] in self.allowed or f"{host[0]}:{host[1]}" in self.allowed

    def knows(self, host: tuple[str, int]) -> bool:
        """Whether a (name, port) is one of this server's."""
        return host[0] in LOOPBACK_NAMES or host[0] in self.hosts or self.allows(host)


@dataclass(frozen=True)
class Answer:
    """A short answer that the guard gives itself."""

    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Guard:
    """ASGI middleware: refuses foreign requests, and puts the security headers on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        assert scope["type"] == "http", scope["type"]

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = secured(message.get("headers", []))
            await send(message)

        answer = examine(scope, self._access) or self._without_prefix(scope)
        if answer is None:
            await self._app(scope, receive, send_secured)
            return
        body = (answer.text + "\n").encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
            *answer.headers,
        ]
        start = {"type": "http.response.start", "status": answer.status, "headers": headers}
        await send_secured(start)
        await send({"type": "http.response.body", "body": body})

    def _without_prefix(self, scope: Scope) -> Answer | None:
        """Take the base path off the request's, where a proxy passes it on."""
        base = self._access.base_path
        if base and scope["path"] == base:
            return Answer(307, "", ((b"location", f"{base}/".encode()),))
        if base and scope["path"].startswith(f"{base}/"):
            scope["path"] = scope["path"][len(base) :]
            scope["raw_path"] = scope["raw_path"][len(base) :]
        return None


def secured(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`headers` and the security headers; not cached unless they say how."""
    names = {name.lower() for name, _ in headers}
    cache = [] if b"cache-control" in names else [(b"cache-control", b"no-store")]
    return [*headers, *SECURITY_HEADERS, *cache]


def examine(scope: Scope, access: Access) -> Answer | None:
    """None for a request that may go on, else the answer that refuses (or redirects) it."""
    if scope["method"] not in ("GET", "HEAD"):
        return Answer(405, "this page is read only", ((b"allow", b"GET, HEAD"),))
    raw_path: bytes = scope["raw_path"]
    if not raw_path.startswith(b"/"):
        return Answer(400, "the request target must be a path")
    if len(raw_path) + len(scope["query_string"]) > MAX_REQUEST_LINE:
        return Answer(414, "the request line is too long")
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    if any(name == b"transfer-encoding" for name, _ in headers) or any(
        value != b"0" for value in _all(headers, b"content-length")
    ):
        return Answer(400, "a request has no body here", ((b"connection", b"close"),))
    return _examine_origin(scope, access) or _examine_token(scope, access)


def _examine_origin(scope: Scope, access: Access) -> Answer | None:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    hosts = _all(headers, b"host")
    if len(hosts) != 1:
        return Answer(400, "exactly one Host header is required")
    host = parse_host(hosts[0])
    if host is None:
        return Answer(400, "the Host header is malformed")
    # Open to others, it answers to the address that the connection really came to.
    is_own_address = access.token is not None and host[0] == scope["server"][0]
    if not access.knows(host) and not is_own_address:
        return Answer(
            403,
            f"this server does not answer to the name {host[0]}: open it as "
            f"http://127.0.0.1:{access.port}/ (through ssh, forward that port), "
            f"or start it with --allow-host {host[0]}",
        )
    return _examine_site(headers, host, access)


def _examine_site(
    headers: list[tuple[bytes, bytes]], host: tuple[str, int], access: Access
) -> Answer | None:
    """Refuse what another web site asks through the user's browser."""
    site = _all(headers, b"sec-fetch-site")
    origins = _all(headers, b"origin")
    # A proxy that rewrites Host leaves Origin as it was; the browser's own word decides then, which
    # no script can set.
    if origins and site != [b"same-origin"]:
        scheme, _, rest = origins[0].partition(b"://")
        origin = parse_host(rest, HTTPS_PORT if scheme == b"https" else HTTP_PORT)
        is_same = scheme == b"http" and origin == host
        is_allowed = scheme in (b"http", b"https") and origin is not None and access.allows(origin)
        if len(origins) > 1 or not (is_same or is_allowed):
            name = origin[0] if origin else "NAME"
            return Answer(
                403,
                "cross-origin requests are refused (a page of this server's own, behind a proxy: "
                f"start it with --allow-host {name})",
            )
    # Browsers send no Origin with an image or script tag of another site, but they send this.
    is_navigation = _all(headers, b"sec-fetch-mode") == [b"navigate"]
    if any(word not in (b"same-origin", b"none") for word in site) and not is_navigation:
        return Answer(403, "cross-site requests are refused")
    return None


def parse_host(value: bytes, default_port: int = HTTP_PORT) -> tuple[str, int] | None:
    """(lower-case name, port) of a Host header's value; None for anything else."""
    match = _HOST.fullmatch(value.decode("latin-1").lower())
    if match is None:
        return None
    name, number = match.groups()
    return name, int(number or default_port)


def _examine_token(scope: Scope, access: Access) -> Answer | None:
    if access.token is None:
        return None
    jar: http.cookies.SimpleCookie = http.cookies.SimpleCookie()
    for value in _all(scope["headers"], b"cookie"):
        try:
            jar.load(value.decode("latin-1"))
        except http.cookies.CookieError:
            continue
    morsel = jar.get(access.cookie)
    if morsel is not None and _same(morsel.value, access.token):
        return None
    query = urllib.parse.parse_qs(scope["query_string"].decode("latin-1"))
    given = query.get("token", [])
    if len(given) == 1 and _same(given[0], access.token):
        cookie = f"{access.cookie}={access.token}; HttpOnly; SameSite=Lax; Path=/"
        # The redirect takes the token out of the address bar and the history; a relative one, since
        # a proxy may have put a prefix before the path.
        return Answer(303, "", ((b"location", b"."), (b"set-cookie", cookie.encode())))
    return Answer(401, "open the address with ?token=... that the command printed")


def _same(given: str, token: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _all(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]
