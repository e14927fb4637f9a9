"""The page next to a training run: its own process, which outlives the trainer's for a moment.

The parent hands over a socket that already listens, so the address is known before the process
runs, and a pipe as standard input. A byte in it ends the page at once. Its end means that the
parent has ended: then the page stays until every open page has shown how the run ended.
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worldflux.dashboard.events import AWAY_S, Audience
from worldflux.dashboard.guard import Access
from worldflux.dashboard.server import PageServer, listen
from worldflux.dashboard.summary import find_trainer
from worldflux.dashboard.what_if import OF_TRAINING, Sessions

STOP_TIMEOUT_S = 5.0
NICENESS = 5  # training goes first on a busy machine

# Pages that were left to end by themselves; nobody waits for them.
_LEFT: list[subprocess.Popen[bytes]] = []


@dataclass
class BackgroundDashboard:
    """A page served by another process; usable as a context manager."""

    url: str
    process: subprocess.Popen[bytes]

    def leave(self) -> None:
        """Let the open pages show how the run ended; then the process ends by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        _LEFT[:] = [process for process in _LEFT if process.poll() is None] + [self.process]

    def stop(self) -> None:
        """End the process at once; harmless when it has ended."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with suppress(BrokenPipeError):
                self.process.stdin.write(b"x")
                self.process.stdin.close()
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> BackgroundDashboard:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


def start_in_background(
    run_dir: str | Path, *, refresh_ms: int = 1000, open_browser: bool = False, **options: Any
) -> BackgroundDashboard:
    """Serve one run folder (it may still be empty) from its own process, on loopback.

    A separate process with a lower priority only reads files, so it cannot delay training. When
    this process ends, however it does, it ends too, once the open pages know of it.

    Args:
        refresh_ms: milliseconds between two looks at the run folder.
        open_browser: open the page in the default browser.
        options: see `listen`.
    """
    listener = listen(**options)
    fd = listener.socket.fileno()
    task = {"run": str(Path(run_dir).resolve()), "fd": fd, "refresh_ms": refresh_ms}
    text = json.dumps({**task, "access": vars(listener.access)})
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "worldflux.dashboard.background", text],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=(fd,),
            # An interrupt from the keyboard is the trainer's to handle.
            start_new_session=True,
        )
    finally:
        listener.socket.close()
    if open_browser:
        webbrowser.open(listener.url)
    return BackgroundDashboard(listener.url, process)


def main(text: str) -> None:
    """Serve one run folder on an inherited socket until standard input closes."""
    task = json.loads(text)
    os.nice(NICENESS)
    run, audience = Path(task["run"]), Audience()
    access, sessions = Access(**task["access"]), Sessions(OF_TRAINING)
    server = PageServer([run], access, task["refresh_ms"], audience, sessions)
    threading.Thread(target=_wait_for_end, args=(server, run, audience), daemon=True).start()
    server.run(sockets=[socket.socket(fileno=task["fd"])])


def _wait_for_end(server: PageServer, run: Path, audience: Audience) -> None:
    """Wait for the parent's end, then for the pages that still have to show how the run ended."""
    if not os.read(sys.stdin.fileno(), 1):
        audience.again = f"worldflux dashboard {shlex.quote(str(run))}"
        until = time.monotonic() + AWAY_S
        while audience.is_there() and (time.monotonic() < until or find_trainer(run)):
            time.sleep(0.1)
    server.should_exit = True


if __name__ == "__main__":
    main(sys.argv[1])
