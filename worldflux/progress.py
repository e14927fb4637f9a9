"""What a command is doing: one live line on a terminal, plain lines at intervals elsewhere.

Everything goes to stderr and is written by the thread that works: a thread of its own would cost an
update time, and environment processes are forked while the line is shown.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

LIVE_S = 0.2  # between two drawings of the live line
_BAR = 20
_STOPPING = b"\nstopping: finishing the current step, then saving; Ctrl+C again stops at once\n"


class Progress:
    """Shows nothing: what library calls get when nobody watches."""

    def phase(
        self, name: str, total: int = 0, unit: str = "", *, done: int = 0, facts: Iterable[str] = ()
    ) -> None:
        """Begin a phase of `total` units (0: not known), such as "evaluating 0/20 episodes"."""

    def due(self) -> bool:
        """Whether `show` would show anything now."""
        return False

    def show(self, done: int, facts: Iterable[str] = ()) -> None:
        """Tell how far the phase is, and facts in the order of their importance."""

    def episodes(self, finished: int, steps: int) -> None:
        """Tell how far episodes are, as `play_episodes` reports it."""

    def say(self, line: str) -> None:
        """Print a line that stays."""

    def confirm(self, warning: str, question: str) -> None:
        """Warn, and ask for a yes where somebody is there to give it."""

    def stopping(self) -> None:
        """Answer a signal at once, from its handler."""

    def close(self) -> None:
        """Take the live line off the terminal."""


SILENT = Progress()


class Screen(Progress):
    """Progress on a stream.

    On a terminal a line is redrawn in place, cut to its width. Elsewhere (and where TERM is "dumb")
    a line is printed when a phase begins for the first time, and at most every `interval_s` after
    that. When the stream is gone the work goes on without it.

    Args:
        stream: stderr by default.
        quiet: print warnings only.
        yes: do not ask.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        interval_s: float = 30.0,
        quiet: bool = False,
        yes: bool = False,
    ) -> None:
        self.stream = stream or sys.stderr
        self.interval_s = interval_s
        self.quiet, self.yes = quiet, yes
        self.live = self.stream.isatty() and os.environ.get("TERM") != "dumb"
        self._name, self._total, self._unit = "", 0, ""
        self._facts: list[str] = []  # of the phase, next to what changes
        self._announced: set[str] = set()
        self._shown = float("-inf")
        self._drawn = False

    def phase(
        self, name: str, total: int = 0, unit: str = "", *, done: int = 0, facts: Iterable[str] = ()
    ) -> None:
        """Begin a phase: shown at once on a terminal, elsewhere where it is new."""
        self._name, self._total, self._unit, self._facts = name, total, unit, list(facts)
        if self.live or name not in self._announced:
            self._shown = float("-inf")
        self._announced.add(name)
        self.show(done, self._facts)

    def episodes(self, finished: int, steps: int) -> None:
        """Tell how far episodes are, as `play_episodes` reports it."""
        if self.due():
            self.show(finished, [f"step {steps}", *self._facts])

    def due(self) -> bool:
        """Whether the line is old enough to be replaced."""
        wait = LIVE_S if self.live else self.interval_s
        return not self.quiet and time.monotonic() - self._shown >= wait

    def show(self, done: int, facts: Iterable[str] = ()) -> None:
        """Redraw the line, or print one, where that is due."""
        if not self.due():
            return
        self._shown = time.monotonic()
        counted = f" {done}/{self._total}" if self._total else ""
        head = self._name + counted + (f" {self._unit}" if self._unit else "")
        if not self.live:
            self._write("  ".join([head, *facts]) + "\n")
            return
        width = self._columns() - 1  # a full line would make some terminals wrap
        rest = ""
        for fact in facts:
            if len(head) + len(rest) + 2 + len(fact) <= width:
                rest += "  " + fact
        bar = min(_BAR, width - len(head) - len(rest) - 1)
        if self._total and bar >= _BAR // 2:
            head += " " + self._bar(done, bar)
        self._write(f"\r{(head + rest)[:width]}\x1b[K")
        self._drawn = True

    def say(self, line: str) -> None:
        """Print a line above the live one; only warnings where `quiet`."""
        if self.quiet and not line.startswith("warning:"):
            return
        self._erase()
        self._write(line + "\n")
        if self.live:
            self._shown = float("-inf")

    def confirm(self, warning: str, question: str) -> None:
        """Warn; on a terminal also ask, and leave unless the answer is yes.

        Raises:
            SystemExit: with code 1, for any other answer.
        """
        self.say(f"warning: {warning}")
        if self.yes or not self.live or not sys.stdin.isatty():
            return
        self._write(f"{question} [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            self.say("not started")
            raise SystemExit(1)

    def stopping(self) -> None:
        """Answer a signal at once, past the stream, which may be in the middle of a write."""
        with suppress(OSError, ValueError):
            os.write(self.stream.fileno(), _STOPPING)

    def close(self) -> None:
        """Erase the live line."""
        self._erase()

    def _erase(self) -> None:
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a closed terminal or pipe must not end a run of days
            self.stream.write(text)
            self.stream.flush()

    def _columns(self) -> int:
        told = os.environ.get("COLUMNS", "")
        if told.isdigit() and int(told):
            return int(told)
        with suppress(OSError, ValueError):
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        return 80

    def _bar(self, done: int, width: int) -> str:
        full = min(width, width * done // self._total)
        utf = (self.stream.encoding or "").lower().startswith("utf")
        return ("█" * full + "░" * (width - full)) if utf else "#" * full + "." * (width - full)


@contextmanager
def on_screen(first: str, *, quiet: bool = False, yes: bool = False) -> Iterator[Screen]:
    """A screen on stderr for one command, which begins with the phase `first`."""
    screen = Screen(quiet=quiet, yes=yes)
    try:
        screen.phase(first)
        yield screen
    except KeyboardInterrupt:
        screen.say("interrupted")
        raise
    finally:
        screen.close()


def duration(seconds: float) -> str:
    """How long, in the units that one would say: "45 s", "12 min", "30 h 6 min", "57 d"."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h" if hours < 10 * 24 else f"{round(hours / 24)} d"
