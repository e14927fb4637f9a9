"""What the charts and the summary need of metrics.jsonl and eval.jsonl, in bounded memory.

`step` counts gradient updates, `env_steps` environment steps, `wall_s` seconds since the run
started; every other number is a metric.

Curves keep every peak and dip: consecutive rows are gathered in buckets of equal width, the same
for all metrics, which hold the lowest, the highest and the mean value of each. When there are too
many buckets, neighbours merge and the width doubles.
"""

from __future__ import annotations

import base64
import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from worldflux.run_log import Row, is_number

NO_METRICS = frozenset({"step", "env_steps", "time", "wall_s", "seed", "non_finite"})
MAX_BROKEN = 256
MAX_NAME_LENGTH = 160
MAX_EVALUATIONS = 2000
EVALUATION_NUMBERS = (
    "time",
    "wall_s",
    "return_mean",
    "return_std",
    "length_mean",
    "random_return_mean",
)


def to_number(value: Any) -> float | None:
    """`value` as a finite float; None for NaN, infinities, huge integers and what is no number."""
    if not is_number(value):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def to_count(value: Any) -> int | None:
    """`value` as a whole number that JavaScript holds exactly, or None."""
    number = to_number(value)
    return int(number) if number is not None and abs(number) < 2**53 else None


class LogRow(NamedTuple):
    """One cleaned row: its place, and its metrics, None where they were not finite."""

    step: int
    env_steps: int | None
    wall_s: float | None
    values: dict[str, float | None]


def clean_row(row: Row) -> LogRow | None:
    """The numbers of a metrics row; None without a usable step."""
    step = to_count(row.get("step"))
    if step is None:
        return None
    listed = row.get("non_finite")
    flagged = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else {}
    values = {}
    for name, raw in row.items():
        if name in NO_METRICS or len(name) > MAX_NAME_LENGTH:
            continue
        if is_number(raw) or name in flagged:
            values[name] = to_number(raw)
    return LogRow(step, to_count(row.get("env_steps")), to_number(row.get("wall_s")), values)


@dataclass
class Recent:
    """The last rows of metrics.jsonl: the counters, the speed, and where numbers broke."""

    last: LogRow | None = None
    non_finite: dict[str, dict[str, int]] = field(default_factory=dict)
    _rows: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))

    def add(self, row: LogRow) -> None:
        """Take one more row; a step before the last one restarts the speed."""
        if self.last is not None and row.step < self.last.step:
            self._rows.clear()
        self.last = row
        if row.wall_s is not None:
            self._rows.append((row.wall_s, row.step))
        for name, value in row.values.items():
            if value is None and (name in self.non_finite or len(self.non_finite) < MAX_BROKEN):
                first = {"count": 0, "first_step": row.step}
                seen = self.non_finite.setdefault(name, first)
                seen |= {"count": seen["count"] + 1, "last_step": row.step}

    def updates_per_s(self) -> float | None:
        """Gradient updates per second over the last rows; None before there are two."""
        if len(self._rows) < 2:
            return None
        (start_s, start), (end_s, end) = self._rows[0], self._rows[-1]
        return (end - start) / (end_s - start_s) if end_s > start_s else None


@dataclass
class EvaluationHistory:
    """The evaluations in order, and the best of them."""

    rows: list[Row] = field(default_factory=list)
    best: Row | None = None

    def add(self, raw: Row) -> None:
        """Take one row of eval.jsonl; one without a step is left out."""
        row = clean_evaluation(raw)
        if row is None:
            return
        if self.rows and row["step"] < self.rows[-1]["step"]:
            self.rows = [old for old in self.rows if old["step"] < row["step"]]
            scored = [old for old in self.rows if old["return_mean"] is not None]
            self.best = max(scored, key=lambda old: float(old["return_mean"]), default=None)
        self.rows.append(row)
        if len(self.rows) > MAX_EVALUATIONS:
            self.rows = self.rows[::2]
        value = row["return_mean"]
        if value is not None and (self.best is None or value > self.best["return_mean"]):
            self.best = row


def clean_evaluation(raw: Row) -> Row | None:
    """The finite numbers of one evaluation; None without a usable step."""
    step, returns = to_count(raw.get("step")), raw.get("returns")
    if step is None:
        return None
    row: Row = {"step": step, "env_steps": to_count(raw.get("env_steps"))}
    row |= {name: to_number(raw.get(name)) for name in EVALUATION_NUMBERS}
    row["episodes"] = len(returns) if isinstance(returns, list) else None
    return row


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
