"""The time of day for what is written down, which never goes back along a run; and stop-watches.

Nothing is decided by the time of day. Durations and timeouts use `time.monotonic`; checkpoints are
ordered by their step.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


class Spent:
    """Seconds by what they were spent on. Each counts once: for the innermost block around it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._around = [OTHER]
        self._since = time.perf_counter()

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Within the block, time is spent on this."""
        self._count()
        self._around.append(what)
        try:
            yield
        finally:
            self._count()
            self._around.pop()

    def seconds(self) -> dict[str, float]:
        """By name, so far; what no block has named is OTHER."""
        self._count()
        return dict(self._seconds)

    def _count(self) -> None:
        now, what = time.perf_counter(), self._around[-1]
        self._seconds[what] = self._seconds.get(what, 0.0) + now - self._since
        self._since = now


def since(before: dict[str, float]) -> dict[str, float]:
    """What was `spent` since `spent.seconds()` gave `before`."""
    return {what: s - before.get(what, 0.0) for what, s in spent.seconds().items()}


def shares(seconds: dict[str, float]) -> str:
    """The four largest ones in percent, that a line may hold: "learning 61 %, evaluation 25 %"."""
    total = sum(seconds.values())
    most = sorted(seconds.items(), key=lambda pair: -pair[1])[:4]
    parts = (f"{what} {100 * s / total:.0f} %" for what, s in most if s >= 0.02 * total > 0)
    return ", ".join(parts)


# What a run spends its time on (docs/metrics.md); a process trains one run at a time.
LEARNING, ACTING, ENVIRONMENT, REPLAY = "learning", "acting", "environment", "replay"
EVALUATION, PICTURES, SAVING, OTHER = "evaluation", "pictures", "saving", "other"
spent = Spent()
