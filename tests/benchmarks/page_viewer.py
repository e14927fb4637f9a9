"""Looks at a dashboard as its page does, until ended: `page_viewer.py URL`; light to start."""

from __future__ import annotations

import http.client
import sys
import threading
import time
from urllib.parse import urlsplit


def look(url: str) -> None:
    """Ask for what the page asks for, once a second, and read the event stream."""
    address = urlsplit(url).netloc
    run = ask(address, "/api/runs").split(b'"id":"')[1][:12].decode()
    threading.Thread(target=read_events, args=(address,), daemon=True).start()
    while True:
        paths = ("gameplay?after=-1", "", "evaluations")
        for path in (
            f"/api/series?run={run}",
            *(f"/api/runs/{run}/{p}".rstrip("/") for p in paths),
        ):
            ask(address, path)
        time.sleep(1.0)


def ask(address: str, path: str) -> bytes:
    """The body of one answer."""
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request("GET", path)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{response.status} for {path}")
    return body


def read_events(address: str) -> None:
    """Read the event stream to its end."""
    connection = http.client.HTTPConnection(address)
    connection.request("GET", "/api/events")
    response = connection.getresponse()
    while response.read1(65536):
        pass


if __name__ == "__main__":
    look(sys.argv[1])
