"""The time of day for what is written down, which never goes back along a run; and stop-watches.

Nothing is decided by the time of day. Durations and timeouts use `time.monotonic`; checkpoints are
ordered by their step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

TIMED_S = 0.1  # a measurement repeats for this long, and once at least


class Clock:
    """Seconds since 1970 that never go backwards.

    Where the machine's clock is put back, this one continues from the last time it gave, by the
    time that really passed, until the machine's has caught up.
    """

    def __init__(self) -> None:
        self._given, self._at = time.time(), time.monotonic()

    def now(self) -> float:
        steady = time.monotonic()
        self._given = max(time.time(), self._given + steady - self._at)
        self._at = steady
        return self._given

    def not_before(self, earlier: float) -> float:
        """Continue after a time that an earlier process wrote; returns how far behind it was."""
        behind = earlier - self.now()
        self._given = max(self._given, earlier)
        return max(0.0, behind)


_CLOCK = Clock()
now = _CLOCK.now
not_before = _CLOCK.not_before


def processor_s() -> float:
    """Seconds of the processor, of this process and of those that it has waited for."""
    return sum(os.times()[:4])


def mean_seconds(work: Callable[[], object]) -> float:
    """Mean duration of `work` after one run to warm up: the first one may compile for minutes."""
    work()
    began, count, passed = time.perf_counter(), 0, 0.0
    while count == 0 or (passed < TIMED_S and count < 50):
        work()
        count += 1
        passed = time.perf_counter() - began
    return passed / count
