"""What a command is doing: one live line on a terminal, plain lines at intervals elsewhere.

Everything goes to stderr and is written by the thread that works: another thread would cost an
update time, and environment processes are forked while the line is shown. Within `lasting_output`
a reader that has gone away ends nothing: what is written is dropped.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TextIO

LIVE_S = 0.2  # between two drawings of the live line
_BAR = 20
_STOPPING = b"\nstopping: finishing the current step, then saving; Ctrl+C again stops at once\n"


class Progress:
    """What a command is doing, on a stream; without one, as for library calls, nothing is shown.

    On a terminal a line is redrawn in place, cut to its width. Elsewhere (and where TERM is "dumb")
    a line is printed when a phase begins for the first time, and at most every `interval_s` after
    that. When the stream is gone the work continues without it.

    Args:
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
        self.stream = stream
        self.interval_s = interval_s
        self.quiet, self.yes = quiet or stream is None, yes
        is_terminal = stream is not None and stream.isatty()
        self.live = is_terminal and os.environ.get("TERM") != "dumb"
        self._name, self._total, self._unit = "", 0, ""
        self._facts: list[str] = []  # of the phase, next to what changes
        self._announced: set[str] = set()
        self._shown = float("-inf")
        self._drawn = False

    def phase(
        self, name: str, total: int = 0, unit: str = "", *, done: int = 0, facts: Iterable[str] = ()
    ) -> None:
        """Begin a phase of `total` units (0: not known), such as "evaluating 0/20 episodes"."""
        self._name, self._total, self._facts = name, total, list(facts)
        self._unit = unit.removesuffix("s") if total == 1 else unit
        if self.live or name not in self._announced:
            self._shown = float("-inf")
        self._announced.add(name)
        self.show(done, self._facts)

    def episodes(self, finished: int, steps: int) -> None:
        """Report how far episodes are, as `play_episodes` counts them."""
        if self.due():
            self.show(finished, [f"step {steps}", *self._facts])

    def due(self) -> bool:
        """Whether `show` would show anything now."""
        wait = LIVE_S if self.live else self.interval_s
        return not self.quiet and time.monotonic() - self._shown >= wait

    def show(self, done: int, facts: Iterable[str] = ()) -> None:
        """Report how far the phase is, and facts in the order of their importance."""
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
        """Print a line that stays; only warnings where `quiet`."""
        if self.quiet and not line.startswith("warning:"):
            return
        self.close()
        self._write(line + "\n")
        if self.live:
            self._shown = float("-inf")

    def confirm(self, warning: str, question: str) -> None:
        """Warn; on a terminal also ask, and exit with code 1 unless the answer is yes."""
        self.say(f"warning: {warning}")
        if self.yes or not self.live or not sys.stdin.isatty():
            return
        self._write(f"{question} [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            self.say("not started")
            raise SystemExit(1)

    def stopping(self) -> None:
        """Answer a signal at once, from its handler: past the stream, which may be in mid-write."""
        if self.stream is not None:
            with suppress(OSError, ValueError):
                os.write(self.stream.fileno(), _STOPPING)

    def close(self) -> None:
        """Take the live line off the terminal."""
        if self._drawn:
            self._write("\r\x1b[K")
            self._drawn = False

    def _write(self, text: str) -> None:
        if self.stream is None:
            return
        with suppress(OSError, ValueError):  # a closed terminal or pipe must not end a run of days
            self.stream.write(text)
            self.stream.flush()

    def _columns(self) -> int:
        columns = os.environ.get("COLUMNS", "")
        if columns.isdigit() and int(columns):
            return int(columns)
        with suppress(OSError, ValueError):
            return os.get_terminal_size(self.stream.fileno() if self.stream else 2).columns or 80
        return 80

    def _bar(self, done: int, width: int) -> str:
        full = min(width, width * done // self._total)
        utf = (getattr(self.stream, "encoding", None) or "").lower().startswith("utf")
        return ("█" * full + "░" * (width - full)) if utf else "#" * full + "." * (width - full)


SILENT = Progress()


@contextmanager
def on_screen(first: str, *, quiet: bool = False, yes: bool = False) -> Iterator[Progress]:
    """A screen on stderr for one command, which begins with the phase `first`."""
    screen = Progress(sys.stderr, quiet=quiet, yes=yes)
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


def counted(number: int, noun: str, form: str = "") -> str:
    """ "1 episode", "20 episodes"; `form` is the number's format, such as ","."""
    return f"{number:{form}} {noun}" + ("" if number == 1 else "s")


class LostOutput:
    """The names of the streams that were lost ("stdout", "stderr")."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._report: Callable[[str], None] | None = None
        self._process = os.getpid()

    def add(self, name: str) -> None:
        self.names.append(name)
        if self._report is not None and os.getpid() == self._process:  # not in a fork
            self._report(name)

    def tell(self, report: Callable[[str], None]) -> None:
        """Call `report` with the name of every stream that was or will be lost."""
        self._report = report
        for name in self.names:
            report(name)


class LastingStream:
    """A text stream whose writes never raise OSError; everything else is the stream's own.

    A pipe without a reader, a terminal that is gone and a log file on a full disk are such ends.
    """

    def __init__(self, stream: Any, name: str, lost: LostOutput) -> None:
        self.lost = lost
        self._stream, self._name = stream, name

    def write(self, text: Any) -> int:
        try:
            return int(self._stream.write(text))
        except OSError:
            self._lose()
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            self._lose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _lose(self) -> None:
        if self._name in self.lost.names:
            return
        # What is still buffered would be tried again, by the interpreter too when it ends.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()
        self.lost.add(self._name)


@contextmanager
def lasting_output() -> Iterator[LostOutput]:
    """Within the block, nothing that is printed can fail for want of a reader."""
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    if isinstance(sys.stderr, LastingStream):  # such a block within another
        yield sys.stderr.lost
        return
    lost = LostOutput()
    with ExitStack() as opened:
        for number in range(3):  # closed by whoever started us: no file may take its place
            with suppress(OSError):
                os.fstat(number)
                continue
            os.open(os.devnull, os.O_RDWR)
        for name, stream in before.items():
            usable = stream or opened.enter_context(open(os.devnull, "w", encoding="utf-8"))
            setattr(sys, name, LastingStream(usable, name, lost))
        try:
            yield lost
        finally:
            for name, stream in before.items():
                setattr(sys, name, stream)
