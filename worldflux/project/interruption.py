"""SIGINT and SIGTERM: finish the update, save, then go; a second signal goes at once.

SIGUSR1: finish the update, save, go on.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """A signal ended work of which nothing has to be saved."""


class Interruption:
    """The first signal that arrived, if any."""

    signal_number: int | None = None

    @property
    def exit_code(self) -> int:
        """128 + signal: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.signal_number or signal.SIGINT)


@contextmanager
def graceful_stop(
    request: Callable[[], None], save: Callable[[], None] | None = None
) -> Iterator[Interruption]:
    """Within the block the first SIGINT or SIGTERM calls `request`, the second ends the process.

    Every SIGUSR1 calls `save`, where that is given.
    """
    seen = Interruption()

    def handle(number: int, frame: FrameType | None) -> None:
        if seen.signal_number is not None:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        seen.signal_number = number
        request()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    if save is not None:
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda number, frame: save())
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
