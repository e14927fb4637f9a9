"""The time of day for what is written down: within a process, and along a run, it never goes back.

Nothing is decided by it. Durations and timeouts use `time.monotonic`; checkpoints are ordered by
their step.
"""

from __future__ import annotations

import time


class Clock:
    """Seconds since 1970 that never go backwards.

    Where the machine's clock is put back, this one goes on from the last time it told, by the time
    that really passed, until the machine's has caught up.
    """

    def __init__(self) -> None:
        self._told, self._at = time.time(), time.monotonic()

    def now(self) -> float:
        """The time of day."""
        steady = time.monotonic()
        self._told = max(time.time(), self._told + steady - self._at)
        self._at = steady
        return self._told

    def not_before(self, told: float) -> float:
        """Go on after what an earlier process told; returns how far the clock was behind it."""
        behind = told - self.now()
        self._told = max(self._told, told)
        return max(0.0, behind)


_CLOCK = Clock()
now = _CLOCK.now
not_before = _CLOCK.not_before
