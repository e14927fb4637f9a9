"""Binding and running the page's server."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import re
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from worldflux.dashboard import DEFAULT_HOST, DEFAULT_PORT
from worldflux.dashboard.app import create_app
from worldflux.dashboard.discovery import RunCollection
from worldflux.dashboard.events import Audience, EventStreams
from worldflux.dashboard.guard import SECURITY_HEADERS, Access, parse_host
from worldflux.dashboard.what_if import Sessions, offered
from worldflux.errors import ConfigurationError

PORTS_TRIED = 20
MAX_HEADER_BYTES = 32 << 10
BACKLOG = 256
SEND_BUFFER_BYTES = 256 << 10
WILDCARDS = ("0.0.0.0", "::")
HEADER_TIMEOUT_S = 5.0
WRITE_TIMEOUT_S = 20.0
MAX_CONNECTIONS = 400

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Listener:
    """A bound, listening socket, who may ask there, and the address to open in a browser."""

    socket: socket.socket
    access: Access
    url: str


def listen(
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    exact_port: bool = False,
    allow_remote: bool = False,
    allow_hosts: Sequence[str] = (),
    base_path: str = "",
) -> Listener:
    """Bind `host` at `port`, or at the next free one of the `PORTS_TRIED` from there.

    Args:
        host: anything but loopback needs `allow_remote`, and gets a random token in its address.
        exact_port: try no port but this one.
        allow_hosts: further names (`name` or `name:port`) that a browser may open the page under.
        base_path: a prefix such as `/user/me/proxy/8765` that a proxy leaves in the path.

    Raises:
        ConfigurationError: the host is unknown, or not loopback without `allow_remote`; no port is
            free; a name or the prefix is malformed.
    """
    names = tuple(_host_name(name) for name in allow_hosts)
    prefix = _prefix(base_path)
    address = _resolve(host)
    if not address.is_loopback and not allow_remote:
        raise ConfigurationError(
            f"{host} is reachable from other machines",
            where="--host",
            hint="keep the default and forward the port (ssh -L 8765:127.0.0.1:8765 machine), or "
            "add --allow-remote to open it behind a random token",
        )
    bound = _bind(address, port, 1 if exact_port or port == 0 else PORTS_TRIED)
    chosen: int = bound.getsockname()[1]
    shown = f"[{address}]" if address.version == 6 else str(address)
    if address.is_loopback:
        access = Access((shown,), chosen, None, prefix, names)
        return Listener(bound, access, f"http://{shown}:{chosen}{prefix}/")
    token = secrets.token_urlsafe(24)
    own = (socket.gethostname().lower(), socket.getfqdn().lower(), shown)
    access = Access(own, chosen, token, prefix, names)
    if str(address) in WILDCARDS:
        shown = min(names, default=socket.gethostname())
    has_port = re.search(r":\d+$", shown) and "]" not in shown
    place = shown if has_port else f"{shown}:{chosen}"
    return Listener(bound, access, f"http://{place}{prefix}/?token={token}")


def _host_name(given: str) -> str:
    if parse_host(given) is None:
        raise ConfigurationError(
            f"{given!r} is not a host name",
            where="--allow-host",
            hint="give the name in the browser's address bar, e.g. --allow-host hub.example",
        )
    return given.lower()


def _prefix(given: str) -> str:
    prefix = "/" + given.strip("/") if given.strip("/") else ""
    if not re.fullmatch(r"[A-Za-z0-9/._~%@-]*", prefix):
        raise ConfigurationError(
            f"{given!r} is not a path",
            where="--base-path",
            hint="give the prefix that the proxy leaves in the path, e.g. --base-path /wf",
        )
    return prefix


def _resolve(host: str) -> IpAddress:
    if host == "localhost":
        return ipaddress.ip_address(DEFAULT_HOST)
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot resolve the host {host!r}", where="--host") from error
    return ipaddress.ip_address(found[0][4][0])


def _bind(address: IpAddress, port: int, tries: int) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    dualstack = str(address) == "::"  # IPv4 too
    for candidate in range(port, min(port + tries, 65536)):
        try:
            listener = socket.create_server(
                (str(address), candidate), family=family, backlog=BACKLOG, dualstack_ipv6=dualstack
            )
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError(
                    f"cannot listen on {address} port {candidate}: {os.strerror(error.errno or 0)}",
                    where="--port",
                ) from error
        else:
            # Accepted connections inherit it: the system would keep megabytes for a slow client.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            # An answer's body would wait 40 ms for the receipt of its head; asyncio sets this for
            # sockets that name their protocol only.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listener
    what = f"port {port} is" if tries == 1 else f"ports {port} to {port + tries - 1} are all"
    raise ConfigurationError(
        f"{what} in use on {address}",
        where="--port",
        hint="give another one with --port, or leave --port out to take the next free one",
    )


def serve(
    runs: Sequence[str | Path] | str | Path,
    *,
    refresh_ms: int = 1000,
    open_browser: bool = False,
    read_only: bool = False,
    announce: Callable[[str], object] = print,
    **options: Any,
) -> None:
    """Serve the page over run folders, projects or folders of them until interrupted.

    Args:
        refresh_ms: milliseconds between two looks at the run folders.
        open_browser: open the page in the default browser.
        read_only: offer no what-if session, which runs the environment of a run.
        announce: called once, with the page's address.
        options: see `listen`.
    """
    places = [runs] if isinstance(runs, str | Path) else runs
    listener = listen(**options)
    announce(listener.url)
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(listener.url,), daemon=True).start()
    access, refusal = offered(listener.access, read_only)
    folders = [Path(place) for place in places]
    server = PageServer(folders, access, refresh_ms, Audience(), Sessions(refusal))
    try:
        server.run(sockets=[listener.socket])
    except KeyboardInterrupt:
        return  # the usual way to end the page


class PageServer(uvicorn.Server):
    """The configured server of some places, not yet running."""

    def __init__(
        self,
        places: Sequence[Path],
        access: Access,
        refresh_ms: int,
        audience: Audience,
        sessions: Sessions,
    ) -> None:
        runs = RunCollection(places)
        self._streams, self._sessions = EventStreams(runs, audience, refresh_ms / 1000), sessions
        app = create_app(runs, access, audience, self._streams, sessions)
        super().__init__(server_config(app))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the event streams first; answers that take too long are cancelled quietly."""
        self._streams.close()
        self._sessions.close()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)


def server_config(app: ASGIApp, keep_alive_s: int = 5) -> uvicorn.Config:
    """How uvicorn serves a local application of ours."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=keep_alive_s,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, with a deadline for headers and for reading, and a connection limit.

    uvicorn itself waits for ever for the second half of a request's headers, and for a client
    that stops reading its answer.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection; the oldest idle one makes room when there are too many."""
        super().connection_made(transport)
        self._opened_at = self.loop.time()
        self._header_deadline = self.loop.call_later(HEADER_TIMEOUT_S, transport.abort)
        others = [c for c in self.connections if isinstance(c, BoundedProtocol) and c is not self]
        if len(others) >= MAX_CONNECTIONS:
            # A connection that is being answered goes only when all are.
            oldest = min(others, key=lambda c: (c._is_busy(), c._opened_at))
            self.connections.discard(oldest)
            oldest.transport.abort()

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._header_deadline.cancel()
        elif self._header_deadline.cancelled():
            self._header_deadline = self.loop.call_later(HEADER_TIMEOUT_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.call_later(WRITE_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._write_deadline.cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._header_deadline.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends: a client that does not read is not waited for."""
        if self.flow.write_paused:
            self.transport.abort()
        else:
            super().shutdown()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, with the same headers as every other answer."""
        headers = {**SECURITY_HEADERS, "content-type": "text/plain", "connection": "close"}
        headers["content-length"] = str(len(msg))
        answer = h11.Response(status_code=400, headers=list(headers.items()), reason=b"Bad Request")
        for event in (answer, h11.Data(data=msg.encode("ascii")), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
