"""`python -m worldflux.dashboard`: the page as a child of a training process.

The parent hands over a socket that already listens, so the address is known before this process
runs, and a pipe as standard input. A byte in it ends the page at once. Its end tells that the
parent is gone: then the page stays until everybody who looks on has been told how the run ended.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn

from worldflux.dashboard.audience import AWAY_S, Audience
from worldflux.dashboard.guard import Access
from worldflux.dashboard.server import create_server
from worldflux.dashboard.trainer_process import find_trainer

NICENESS = 5


def main(arguments: list[str]) -> None:
    """Serve one run folder on an inherited socket until standard input closes."""
    parser = argparse.ArgumentParser(prog="worldflux.dashboard")
    parser.add_argument("run", type=Path)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--refresh-ms", type=int, required=True)
    parser.add_argument("--hosts", required=True, help="comma-separated Host names to answer to")
    parser.add_argument("--allowed", default="", help="names that the user gave, likewise")
    parser.add_argument("--base-path", default="")
    options = parser.parse_args(arguments)
    # Training goes first on a busy machine.
    os.nice(NICENESS)
    listener = socket.socket(fileno=options.fd)
    hosts, allowed = (
        frozenset(filter(None, n.split(","))) for n in (options.hosts, options.allowed)
    )
    access = Access(hosts, listener.getsockname()[1], None, options.base_path, allowed)
    audience = Audience()
    server = create_server([options.run], access, options.refresh_ms, audience)
    watch = threading.Thread(target=_end, args=(server, options.run, audience), daemon=True)
    watch.start()
    server.run(sockets=[listener])


def _end(server: uvicorn.Server, run: Path, audience: Audience) -> None:
    """Wait for the parent's end, then for the pages that want to know how the run ended."""
    if not os.read(sys.stdin.fileno(), 1):
        audience.again = f"worldflux dashboard {shlex.quote(str(run))}"
        until = time.monotonic() + AWAY_S
        while audience.is_there() and (time.monotonic() < until or find_trainer(run)):
            time.sleep(0.1)
    server.should_exit = True


if __name__ == "__main__":
    main(sys.argv[1:])
