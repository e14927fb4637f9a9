"""What the charts and the summary need of metrics.jsonl and eval.jsonl, in bounded memory.

`step` counts gradient updates, `env_steps` environment steps, `wall_s` seconds since the run
started; every other number is a metric.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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
