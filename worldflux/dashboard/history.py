"""What the charts need of metrics.jsonl and eval.jsonl, kept in bounded memory.

Rows are those of the run-folder format: `step` counts gradient updates, `env_steps` environment
steps, `wall_s` seconds since the run started; every other number is a metric.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from worldflux.run_log import Row

NO_METRICS = frozenset({"step", "env_steps", "time", "wall_s", "seed", "non_finite"})
MAX_BROKEN = 256
MAX_NAME_LENGTH = 160
MAX_EVALUATIONS = 2000
EVALUATION_FIELDS = ("return_mean", "return_std", "length_mean", "random_return_mean")


def to_number(value: Any) -> float | None:
    """`value` as a finite float; None for NaN, infinities, huge integers and what is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
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
    """One cleaned row: where it stands, its finite metrics, and the names of the others."""

    step: int
    env_steps: int | None
    wall_s: float | None
    values: dict[str, float | None]
    non_finite: list[str]


def clean_row(row: Row) -> LogRow | None:
    """The numbers of a metrics row; None without a usable step."""
    step = to_count(row.get("step"))
    if step is None:
        return None
    listed = row.get("non_finite")
    flagged = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else {}
    values: dict[str, float | None] = {}
    non_finite: list[str] = []
    for name, raw in row.items():
        if name in NO_METRICS or len(name) > MAX_NAME_LENGTH:
            continue
        number = to_number(raw)
        is_gap = (isinstance(raw, int | float) and not isinstance(raw, bool)) or name in flagged
        if number is not None:
            values[name] = number
        elif is_gap:
            values[name] = None
            non_finite.append(name)
    return LogRow(
        step, to_count(row.get("env_steps")), to_number(row.get("wall_s")), values, non_finite
    )


@dataclass
class Recent:
    """The last rows of metrics.jsonl: the counters, the speed, and where numbers broke."""

    last: LogRow | None = None
    non_finite: dict[str, dict[str, int]] = field(default_factory=dict)
    _rows: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))

    def add(self, row: LogRow) -> None:
        """Take one more row; a step that lies before the last one begins the speed anew."""
        if self.last is not None and row.step < self.last.step:
            self._rows.clear()
        self.last = row
        if row.wall_s is not None:
            self._rows.append((row.wall_s, row.step))
        for name in row.non_finite:
            seen = self.non_finite.get(name)
            if seen is not None:
                seen["count"] += 1
                seen["last_step"] = row.step
            elif len(self.non_finite) < MAX_BROKEN:
                self.non_finite[name] = {"count": 1, "first_step": row.step, "last_step": row.step}

    def updates_per_s(self) -> float | None:
        """Gradient updates per second over the last rows; None before there are two."""
        if len(self._rows) < 2:
            return None
        (start_s, start), (end_s, end) = self._rows[0], self._rows[-1]
        return (end - start) / (end_s - start_s) if end_s > start_s else None


def clean_rows(rows: Iterable[Row]) -> list[LogRow]:
    """The usable ones of some rows."""
    return [cleaned for row in rows if (cleaned := clean_row(row)) is not None]


@dataclass
class EvaluationHistory:
    """The evaluations in order, the best of them, and the random policy's return beside them."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None

    def add(self, raw: Row) -> dict[str, Any] | None:
        """Take one row of eval.jsonl; the cleaned row, or None when it cannot be placed."""
        row = clean_evaluation(raw)
        if row is None:
            return None
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
        return row


def clean_evaluation(raw: Row) -> dict[str, Any] | None:
    """The finite numbers of one evaluation, the times as `time` and `wall_s`."""
    step = to_count(raw.get("step"))
    if step is None:
        return None
    row: dict[str, Any] = {
        "step": step,
        "env_steps": to_count(raw.get("env_steps")),
        "time": to_number(raw.get("time")),
        "wall_s": to_number(raw.get("wall_s")),
    }
    row |= {name: to_number(raw.get(name)) for name in EVALUATION_FIELDS}
    returns = raw.get("returns")
    row["episodes"] = len(returns) if isinstance(returns, list) else None
    return row
