"""The curves of a run's metrics in bounded memory, every peak and dip kept.

All metrics share their rows, so they share the buckets too: consecutive rows gathered in buckets of
equal width, which hold the lowest, the highest and the mean value of each metric. When there are
too many buckets, neighbours merge and the width doubles.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import numpy as np

from worldflux.dashboard.history import LogRow

CAPACITY = 512
MAX_METRICS = 256
AXES = ("step", "env_steps", "wall_s")


class Curves:
    """The buckets of every metric, and where they stand on each axis.

    `generation` changes when earlier buckets no longer hold (a resumed run wrote rows again, or
    buckets merged): a reader with an older one starts again.
    """

    def __init__(self, generation: int = 0) -> None:
        self.generation = generation
        self.names: dict[str, int] = {}
        self.dropped: set[str] = set()
        self.width = 1
        self.used = 0
        self._filled = 0  # rows in the last bucket
        self._axes = np.full((CAPACITY, len(AXES)), np.nan)
        self._low, self._high = (np.zeros((CAPACITY, 0), np.float32) for _ in range(2))
        # Sum and number of the finite values, and number of the others.
        self._totals = np.zeros((CAPACITY, 0, 3), np.float32)

    def add(self, row: LogRow) -> None:
        """Take one more row; one whose step lies before the last rewinds the curves to it."""
        if self.used and row.step < self._axes[self.used - 1, 0]:
            self._rewind(row.step)
        if not self.used or self._filled == self.width:
            if self.used == CAPACITY:
                self._merge()
            self._open()
        at = self.used - 1
        self._filled += 1
        places = (row.step, row.env_steps, row.wall_s)
        self._axes[at] = [np.nan if place is None else place for place in places]
        columns, values = self._columns(row.values)
        known = ~np.isnan(values)
        self._low[at, columns] = np.fmin(self._low[at, columns], values)
        self._high[at, columns] = np.fmax(self._high[at, columns], values)
        totals = np.stack([np.where(known, values, 0), known, ~known], axis=-1)
        self._totals[at, columns] += totals

    def _columns(self, values: dict[str, float | None]) -> tuple[np.ndarray, np.ndarray]:
        for name in values:
            if name in self.names or name in self.dropped:
                continue
            if len(self.names) < MAX_METRICS:
                self.names[name] = len(self.names)
            elif len(self.dropped) < MAX_METRICS:
                self.dropped.add(name)
        if len(self.names) > self._low.shape[1]:
            more = len(self.names) + 8 - self._low.shape[1]
            wider = ((0, 0), (0, more))
            self._low = np.pad(self._low, wider, constant_values=np.nan)
            self._high = np.pad(self._high, wider, constant_values=np.nan)
            self._totals = np.pad(self._totals, (*wider, (0, 0)))
        kept = [(self.names[name], value) for name, value in values.items() if name in self.names]
        columns = np.array([column for column, _ in kept], np.intp)
        numbers = [np.nan if value is None else value for _, value in kept]
        with np.errstate(over="ignore"):  # what no float32 holds is drawn as a gap
            found = np.array(numbers, np.float64).astype(np.float32)
        return columns, np.where(np.isfinite(found), found, np.nan)

    def _open(self) -> None:
        at = self.used
        self.used, self._filled = at + 1, 0
        self._low[at], self._high[at], self._totals[at] = np.nan, np.nan, 0

    def _merge(self) -> None:
        half = CAPACITY // 2
        early, late = slice(0, CAPACITY, 2), slice(1, CAPACITY, 2)
        self._axes[:half] = self._axes[late]
        self._low[:half] = np.fmin(self._low[early], self._low[late])
        self._high[:half] = np.fmax(self._high[early], self._high[late])
        self._totals[:half] = self._totals[early] + self._totals[late]
        self.used, self.width, self.generation = half, 2 * self.width, self.generation + 1

    def _rewind(self, step: int) -> None:
        """Forget the buckets that reach `step` or beyond: a resumed run writes them again."""
        self.used = int(np.searchsorted(self._axes[: self.used, 0], step))
        self._filled = self.width
        self.generation += 1

    def to_json(self, names: Iterable[str], since: int) -> dict[str, Any]:
        """The buckets from number `since`, as base64 of little-endian floats.

        `axes` are float64; `metrics[name]` has `mean`, and `low` and `high` where they differ,
        as float32: NaN where the metric was not logged, infinity where it was not finite.
        """
        span = slice(min(since, self.used), self.used)
        metrics = {}
        for name in names:
            if name not in self.names:
                continue
            column = self.names[name]
            total, count, broken = self._totals[span, column].T
            absent = np.where(broken > 0, np.inf, np.nan)
            mean = np.where(count > 0, total / np.maximum(count, 1), absent)
            metrics[name] = {"mean": _packed(mean.astype("<f4"))}
            if self.width > 1:
                metrics[name]["low"] = _packed(self._low[span, column].astype("<f4"))
                metrics[name]["high"] = _packed(self._high[span, column].astype("<f4"))
        return {
            "generation": self.generation,
            "width": self.width,
            "from": span.start,
            "axes": {axis: _packed(self._axes[span, k]) for k, axis in enumerate(AXES)},
            "metrics": metrics,
        }


def _packed(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")
