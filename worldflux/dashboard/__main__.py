"""`python -m worldflux.dashboard`: the page as a child of a training process.

The parent hands over a socket that already listens, so the address is known before this process
runs, and a pipe as standard input, whose end tells that the parent is gone.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from worldflux.dashboard.guard import Access
from worldflux.dashboard.server import create_server

NICENESS = 5


def main(arguments: list[str]) -> None:
    """Serve one run folder on an inherited socket until standard input closes."""
    parser = argparse.ArgumentParser(prog="worldflux.dashboard")
    parser.add_argument("run", type=Path)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--refresh-ms", type=int, required=True)
    parser.add_argument("--hosts", required=True, help="comma-separated Host names to answer to")
    options = parser.parse_args(arguments)
    # Training goes first on a busy machine.
    os.nice(NICENESS)
    listener = socket.socket(fileno=options.fd)
    access = Access(frozenset(options.hosts.split(",")), listener.getsockname()[1])
    server = create_server([options.run], access, options.refresh_ms)
    threading.Thread(target=_exit_with_parent, args=(server,), daemon=True).start()
    server.run(sockets=[listener])


def _exit_with_parent(server: uvicorn.Server) -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    server.should_exit = True


if __name__ == "__main__":
    main(sys.argv[1:])
