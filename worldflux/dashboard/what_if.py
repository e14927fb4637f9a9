"""What-if sessions of the page: one process for each page that asks, which holds run and model.

Everything else of the page only reads. Here a request runs the run's environment, so it is offered
on this machine alone: not to a page that is open to others, and not with `--read-only`.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from worldflux.dashboard.guard import Access

PLACE = "/api/what-if"
MAX_BODY_BYTES = 8 << 10
MAX_SESSIONS = 3  # each holds a model in memory
ANSWER_S = 120.0
OF_TRAINING = "this page belongs to a training run: worldflux dashboard RUN offers it"


def offered(access: Access, read_only: bool) -> tuple[Access, str]:
    """The access with what a session needs, and "", or why there are none."""
    if read_only:
        return access, "the page was started with --read-only"
    if access.token is not None or access.allowed:
        return access, "the page is open to other machines: forward its port instead (ssh -L)"
    return replace(access, max_body_bytes=MAX_BODY_BYTES, takes_bodies_at=PLACE), ""


class Session:
    """A process that answers one request after another; it ends with its input or when idle."""

    def __init__(self, folder: Path) -> None:
        self._lock, self._folder = threading.Lock(), folder
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worldflux.project.what_if_session"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # an interrupt from the keyboard is the page's to handle
        )

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer, {"error", "hint"} where there is none."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        with self._lock:
            try:
                stdin.write(json.dumps(request).encode() + b"\n")
                stdin.flush()
                is_there = bool(select.select([stdout], [], [], ANSWER_S)[0])
                line = stdout.readline() if is_there else b""
            except (BrokenPipeError, ValueError):
                line, is_there = b"", True
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self.end()
        why = "its process ended" if is_there else f"no answer within {ANSWER_S:g} s"
        return {"error": f"the session is over: {why}", "hint": "begin it again", "over": True}

    def end(self) -> None:
        """End the process, which closes its environment if it can."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Sessions:
    """The sessions of the open pages; safe to use from several threads.

    Args:
        refusal: why there are none, or "".
    """

    def __init__(self, refusal: str) -> None:
        self.refusal = refusal
        self._lock, self._open = threading.Lock(), dict[str, Session]()

    def answer(
        self, page: str, request: dict[str, Any], folder_of: Callable[[str], Path | None]
    ) -> dict[str, Any]:
        """The answer to {"run": ID} (begin), {"moment": ...} or {"action": ...} of a page."""
        if self.refusal:
            return {"error": self.refusal, "hint": None}
        folder = folder_of(str(request["run"])) if "run" in request else None
        if folder is not None:
            self.leave(page)
            with self._lock:
                crowded = len(self._open) >= MAX_SESSIONS
                oldest = self._open.pop(next(iter(self._open))) if crowded else None
                self._open[page] = session = Session(folder)
            if oldest is not None:
                oldest.end()
            answer = session.ask({"run": str(folder)})
            if "error" in answer:
                self.leave(page)
            return answer
        with self._lock:
            found = self._open.get(page)
        if found is None:
            return {"error": "there is no session", "hint": "begin it again", "over": True}
        return found.ask(request)

    def leave(self, page: str) -> None:
        """The page needs its session no more."""
        with self._lock:
            session = self._open.pop(page, None)
        if session is not None:
            session.end()

    def close(self) -> None:
        """End all sessions."""
        for page in list(self._open):
            self.leave(page)
