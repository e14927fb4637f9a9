"""Signals: the first SIGINT, SIGTERM or SIGHUP stops after the update, a second one at once.

SIGUSR1: finish the update, save, continue.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal ended work of which nothing has to be saved.

    No `Exception`: torch.compile takes these for its own failures, and the run would go on.
    """


def interrupt() -> None:
    """For `graceful_stop`: end such work at once."""
    raise Interrupted


class Interruption:
    """The first signal that arrived, if any."""

    signal_number: int | None = None

    @property
    def exit_code(self) -> int:
        """128 + signal: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.signal_number or signal.SIGINT)


@contextmanager
def graceful_stop(
    request: Callable[[], None], save: Callable[[], None] | None = None
) -> Iterator[Interruption]:
    """Within the block the first stopping signal calls `request`, SIGUSR1 calls `save`.

    A SIGHUP that is ignored, as under nohup, stays so. Outside the main thread Python has no
    signals.
    """
    seen = Interruption()
    if threading.current_thread() is not threading.main_thread():
        yield seen
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if seen.signal_number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        seen.signal_number = number
        request()

    before = {
        number: signal.signal(number, handle)
        for number in _STOPPING
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }
    if save is not None:
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda number, frame: save())
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
