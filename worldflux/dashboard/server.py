"""Binding and running the page's server."""

from __future__ import annotations

import errno
import ipaddress
import re
import secrets
import socket
import threading
import webbrowser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from worldflux.dashboard import DEFAULT_HOST, DEFAULT_PORT
from worldflux.dashboard.app import create_app
from worldflux.dashboard.audience import Audience
from worldflux.dashboard.discovery import RunCollection
from worldflux.dashboard.guard import Access, parse_host
from worldflux.dashboard.protocol import BoundedProtocol
from worldflux.errors import ConfigurationError

PORTS_TRIED = 20
MAX_HEADER_BYTES = 32 << 10
BACKLOG = 256
SEND_BUFFER_BYTES = 256 << 10
WILDCARDS = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Listener:
    """A bound, listening socket, who may ask there, and the address to open in a browser."""

    socket: socket.socket
    access: Access
    url: str


def listen(
    host: str,
    port: int,
    *,
    exact_port: bool,
    allow_remote: bool,
    allow_hosts: Sequence[str] = (),
    base_path: str = "",
) -> Listener:
    """Bind `host` at `port`, or at the next free one of the `PORTS_TRIED` from there.

    Args:
        allow_hosts: further names (`name` or `name:port`) that a browser may open the page under.
        base_path: a prefix such as `/user/me/proxy/8765` that a proxy leaves in the path.

    Raises:
        ConfigurationError: the host is not loopback and `allow_remote` is not given; the host is
            unknown; the port (with `exact_port`) or every port tried is taken; a name or the
            prefix is malformed.
    """
    names = frozenset(_host_name(name) for name in allow_hosts)
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
    shown = _bracketed(address)
    if address.is_loopback:
        access = Access(frozenset({shown}), chosen, None, prefix, names)
        return Listener(bound, access, f"http://{shown}:{chosen}{prefix}/")
    token = secrets.token_urlsafe(24)
    own = frozenset({socket.gethostname().lower(), socket.getfqdn().lower(), shown})
    access = Access(own, chosen, token, prefix, names)
    if str(address) in WILDCARDS:
        shown = next(iter(sorted(names)), socket.gethostname())
    place = shown if re.search(r":\d+$", shown) and "]" not in shown else f"{shown}:{chosen}"
    return Listener(bound, access, f"http://{place}{prefix}/?token={token}")


def _host_name(given: str) -> str:
    host = parse_host(given.encode("ascii", "replace"))
    if host is None:
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


def _resolve(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    if host == "localhost":
        return ipaddress.ip_address(DEFAULT_HOST)
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"cannot resolve the host {host!r}", where="--host") from error
    return ipaddress.ip_address(found[0][4][0])


def _bracketed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)


def _bind(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, tries: int
) -> socket.socket:
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    for candidate in range(port, min(port + tries, 65536)):
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted connections inherit it: the system would keep megabytes for a slow client.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        try:
            listener.bind((str(address), candidate))
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            if error.errno != errno.EADDRINUSE:
                raise ConfigurationError(
                    f"cannot listen on {address} port {candidate}: {error.strerror}",
                    where="--port",
                ) from error
        else:
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
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    exact_port: bool = False,
    refresh_ms: int = 1000,
    open_browser: bool = False,
    allow_remote: bool = False,
    allow_hosts: Sequence[str] = (),
    base_path: str = "",
    announce: Callable[[str], object] = print,
) -> None:
    """Serve the page over some run folders until interrupted.

    Args:
        runs: run folders, projects, or folders of them; one or several.
        host: the address to bind; anything but loopback needs `allow_remote`.
        port: the first port to try, or with `exact_port` the only one.
        refresh_ms: milliseconds between two looks at the run folders.
        open_browser: open the page in the default browser.
        allow_remote: let other machines in, behind a random token in the address.
        allow_hosts: further names that a browser may open the page under (a proxy's).
        base_path: a prefix that a proxy leaves in the path.
        announce: called once, with the page's address.

    Raises:
        ConfigurationError: see `listen`.
    """
    places = [runs] if isinstance(runs, str | Path) else runs
    listener = listen(
        host,
        port,
        exact_port=exact_port,
        allow_remote=allow_remote,
        allow_hosts=allow_hosts,
        base_path=base_path,
    )
    announce(listener.url)
    if open_browser:
        threading.Thread(target=webbrowser.open, args=(listener.url,), daemon=True).start()
    server = create_server([Path(place) for place in places], listener.access, refresh_ms)
    try:
        server.run(sockets=[listener.socket])
    except KeyboardInterrupt:
        # Interrupting is how the page is meant to end.
        return


def create_server(
    places: Sequence[Path], access: Access, refresh_ms: int, audience: Audience | None = None
) -> uvicorn.Server:
    """The configured server, not yet running."""
    holder: list[uvicorn.Server] = []
    app = create_app(
        RunCollection(places),
        access,
        refresh_ms=refresh_ms,
        closing=lambda: bool(holder) and holder[0].should_exit,
        audience=audience,
    )
    config = uvicorn.Config(
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
        timeout_keep_alive=5,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
    holder.append(uvicorn.Server(config))
    return holder[0]
