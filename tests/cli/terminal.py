"""`worldflux` on a pseudo-terminal, for what it does only there."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path


class Terminal:
    """`worldflux` with its three streams on a pseudo-terminal."""

    def __init__(self, folder: Path, *arguments: str, **variables: str) -> None:
        self.master, slave = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worldflux", *arguments],
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **variables},
        )
        os.close(slave)

    def wait_for(self, text: str) -> None:
        """Read until `text` is on the screen; what was read before it is dropped."""
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += self._read()
        self.seen = self.seen.partition(text)[2]

    def answer(self, question: str, keys: str) -> None:
        self.wait_for(question)
        time.sleep(0.2)  # the prompt draws its question before it listens
        os.write(self.master, keys.encode())

    def finish(self) -> tuple[int, str]:
        """The exit code, and what was printed since the last question."""
        deadline = time.monotonic() + 60
        while self.process.poll() is None or select.select([self.master], [], [], 0)[0]:
            if select.select([self.master], [], [], 0.1)[0]:
                chunk = self._read()
                if not chunk:
                    break
                self.seen += chunk
            assert time.monotonic() < deadline, f"it did not end: {self.seen!r}"
        return self.process.wait(30), self.seen

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.master)

    def _read(self) -> str:
        try:
            return os.read(self.master, 65_536).decode(errors="replace")
        except OSError:  # the other end is closed
            return ""
