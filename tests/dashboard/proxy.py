"""A small reverse proxy, as nginx or Jupyter would be: it may rewrite Host and keep a prefix."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def proxied(
    port: int, *, prefix: str = "", keeps_prefix: bool = False, host: str | None = None
) -> Iterator[int]:
    """Forward `prefix`/... to the server at `port`; gives the proxy's own port.

    Args:
        keeps_prefix: leave the prefix in the path that the server sees.
        host: the Host header that the server sees; the browser's own by default.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def do_GET(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            path = self.path if keeps_prefix else self.path[len(prefix) :]
            upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "connection"}
            headers["Host"] = host or self.headers["Host"]
            try:
                upstream.request("GET", path, headers=headers)
                answer = upstream.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("connection", "transfer-encoding", "date"):
                        self.send_header(name, value)
                self.end_headers()
                while piece := answer.read1(65536):
                    self.wfile.write(piece)
            except OSError:
                return
            finally:
                upstream.close()

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
