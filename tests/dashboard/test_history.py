"""Rows cleaned of everything that is not a finite number."""

from __future__ import annotations

import math

import pytest

from worldflux.dashboard.history import (
    EvaluationHistory,
    Recent,
    clean_row,
    to_count,
    to_number,
)
from worldflux.run_log import parse_row


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
    recent = Recent()
    recent.add(cleaned)
    assert recent.non_finite["loss/c"] == {"count": 1, "first_step": 3, "last_step": 3}


@pytest.mark.parametrize("step", [None, "5", True, math.nan, 1e300, [1]])
def test_a_row_without_a_usable_step_is_dropped(step: object) -> None:
    assert clean_row({"step": step, "a": 1.0}) is None


def test_speed_begins_anew_after_a_rewind() -> None:
    recent = Recent()
    for step in (100, 200, 300, 150):
        row = clean_row({"step": step, "wall_s": step / 50, "a": float(step)})
        assert row is not None
        recent.add(row)
        if step == 300:
            assert recent.updates_per_s() == pytest.approx(50.0)
    assert recent.updates_per_s() is None


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
