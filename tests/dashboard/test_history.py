"""Rows cleaned of everything that is not a finite number."""

from __future__ import annotations

import math

import pytest

from worldflux.dashboard.history import (
    MAX_SERIES,
    EvaluationHistory,
    MetricsHistory,
    clean_row,
    to_count,
    to_number,
)
from worldflux.dashboard.jsonl import parse_row, to_strict_json


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 10**400, True, "1", None, [1], {"a": 1}]
)
def test_what_is_no_finite_number_is_none(value: object) -> None:
    assert to_number(value) is None
    assert to_count(value) is None


def test_broken_numbers_are_gaps_with_a_flag() -> None:
    row = parse_row(
        b'{"step": 3, "loss/a": NaN, "loss/b": -Infinity, "loss/c": null, "loss/d": 1e999,'
        b' "text": "x", "off": true, "nothing": null, "non_finite": ["loss/c", 7]}'
    )
    assert row is not None
    cleaned = clean_row(row)
    assert cleaned is not None
    assert cleaned.values == {"loss/a": None, "loss/b": None, "loss/c": None, "loss/d": None}
    assert cleaned.non_finite == ["loss/a", "loss/b", "loss/c", "loss/d"]
    history = MetricsHistory()
    history.add(cleaned)
    assert history.non_finite["loss/c"] == {"count": 1, "first_step": 3, "last_step": 3}
    assert history.to_json(1000)["loss/a"]["value"] == [None]
    to_strict_json(history.to_json(1000))


@pytest.mark.parametrize("step", [None, "5", True, math.nan, 1e300, [1]])
def test_a_row_without_a_usable_step_is_dropped(step: object) -> None:
    assert clean_row({"step": step, "a": 1.0}) is None


def test_the_number_of_series_and_their_names_are_bounded() -> None:
    history = MetricsHistory()
    values = {f"m{index}": 1.0 for index in range(MAX_SERIES + 50)} | {"x" * 200: 1.0}
    row = clean_row({"step": 1, **values})
    assert row is not None
    history.add(row)
    assert len(history.series) == MAX_SERIES
    assert history.dropped_series == 50


def test_speed_and_rewind() -> None:
    history = MetricsHistory()
    for step in (100, 200, 300, 150):
        row = clean_row({"step": step, "wall_s": step / 50, "a": float(step)})
        assert row is not None
        history.add(row)
        if step == 300:
            assert history.updates_per_s() == pytest.approx(50.0)
    assert history.updates_per_s() is None
    assert history.to_json(1000)["a"]["step"] == [100, 150]


def test_the_best_evaluation_follows_a_rewind() -> None:
    history = EvaluationHistory()
    for step, mean in ((10, 1.0), (20, 5.0), (30, 3.0), (40, math.nan)):
        history.add({"step": step, "return_mean": mean, "returns": [1, 2]})
    assert history.best is not None
    assert history.best["step"] == 20
    assert history.rows[-1]["return_mean"] is None
    history.add({"step": 15, "return_mean": 0.5})
    assert history.best["step"] == 10
    assert [row["step"] for row in history.rows] == [10, 15]
