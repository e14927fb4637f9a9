"""The page beside a training run: its own process, which outlives the trainer's for a moment."""

from __future__ import annotations

import subprocess
import sys
import webbrowser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from worldflux.dashboard import DEFAULT_HOST, DEFAULT_PORT
from worldflux.dashboard.server import listen

STOP_TIMEOUT_S = 5.0

# Pages that were left to end by themselves; nobody waits for them.
_LEFT: list[subprocess.Popen[bytes]] = []


@dataclass
class BackgroundDashboard:
    """A page served by another process; usable as a context manager."""

    url: str
    process: subprocess.Popen[bytes]

    def leave(self) -> None:
        """Let the page tell everybody who looks on how the run ended; then it ends by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        _LEFT[:] = [process for process in _LEFT if process.poll() is None] + [self.process]

    def stop(self) -> None:
        """End the process at once; harmless when it has ended."""
        if self.process.stdin is not None and not self.process.stdin.closed:
            with suppress(BrokenPipeError):
                self.process.communicate(b"x", STOP_TIMEOUT_S)
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
    run_dir: str | Path,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    refresh_ms: int = 1000,
    open_browser: bool = False,
    allow_hosts: Sequence[str] = (),
    base_path: str = "",
) -> BackgroundDashboard:
    """Serve one run folder (it may still be empty) from a process of its own.

    A separate process with a lower priority reads files only: nothing of it can hold up training.
    When this process ends, however it does, it ends too, once the open pages know of it.

    Args:
        run_dir: the run folder to show.
        host: a loopback address.
        port: the first port to try; the next free one is taken.
        refresh_ms: milliseconds between two looks at the run folder.
        open_browser: open the page in the default browser.
        allow_hosts: further names that a browser may open the page under.
        base_path: a prefix that a proxy leaves in the path.

    Raises:
        ConfigurationError: `host` is not loopback, or no port is free.
    """
    listener = listen(
        host,
        port,
        exact_port=False,
        allow_remote=False,
        allow_hosts=allow_hosts,
        base_path=base_path,
    )
    fd = listener.socket.fileno()
    command = [sys.executable, "-m", "worldflux.dashboard", str(Path(run_dir).resolve())]
    command += ["--fd", str(fd), "--refresh-ms", str(refresh_ms)]
    command += ["--hosts", ",".join(sorted(listener.access.hosts))]
    command += ["--allowed", ",".join(sorted(listener.access.allowed))]
    command += ["--base-path", listener.access.base_path]
    try:
        process = subprocess.Popen(
            command,
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
