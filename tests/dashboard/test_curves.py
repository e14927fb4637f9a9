"""Decimation: bounded, ordered, and no peak lost."""

from __future__ import annotations

import base64
import itertools
import math
import random
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.dashboard.history import CAPACITY, MAX_METRICS, Curves, clean_row


def filled(values: list[float | None]) -> Curves:
    curves = Curves()
    for step, value in enumerate(values):
        add(curves, step, value)
    return curves


def add(curves: Curves, step: int, value: float | None) -> None:
    row = clean_row({"step": step, "a": math.nan if value is None else value})
    assert row is not None
    curves.add(row)


def shown(curves: Curves, name: str = "a", since: int = 0) -> dict[str, list[float]]:
    answer = curves.to_json([name], since)
    columns = {axis: floats(packed, "<f8") for axis, packed in answer["axes"].items()}
    return columns | {k: floats(packed, "<f4") for k, packed in answer["metrics"][name].items()}


def floats(packed: str, kind: str) -> list[float]:
    numbers: list[float] = np.frombuffer(base64.b64decode(packed), kind).tolist()
    return numbers


def test_a_hundred_thousand_points_stay_few_and_keep_every_spike() -> None:
    generator = random.Random(0)
    values: list[float | None] = [generator.gauss(0, 1) for _ in range(100_000)]
    spikes = {12_345: 50.0, 12_346: -60.0, 99_998: 70.0}
    for step, value in spikes.items():
        values[step] = value
    curves = shown(filled(values))
    assert CAPACITY / 2 <= len(curves["step"]) <= CAPACITY
    assert curves["step"][-1] == 99_999
    assert all(a < b for a, b in itertools.pairwise(curves["step"]))
    assert set(spikes.values()) <= {*curves["low"], *curves["high"]}
    assert abs(np.mean(curves["mean"])) < 0.05


@given(values=st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=1500))
@settings(max_examples=30, deadline=None)
def test_extremes_ends_and_order_always_survive(values: list[float | None]) -> None:
    curves = shown(filled(values))
    steps = curves["step"]
    assert steps == sorted(set(steps))
    assert steps[-1] == len(values) - 1
    finite = [value for value in values if value is not None]
    low = [n for n in curves.get("low", curves["mean"]) if math.isfinite(n)]
    high = [n for n in curves.get("high", curves["mean"]) if math.isfinite(n)]
    if finite:
        assert (min(low), max(high)) == (np.float32(min(finite)), np.float32(max(finite)))


def test_few_points_are_kept_exactly_with_their_gaps() -> None:
    curves = shown(filled([1.0, None, 3.0, 0.25]))
    assert curves["mean"] == [1.0, math.inf, 3.0, 0.25]
    assert "low" not in curves


def test_a_metric_that_was_not_logged_is_no_gap() -> None:
    curves = filled([1.0, 2.0])
    row = clean_row({"step": 2, "b": 5.0})
    assert row is not None
    curves.add(row)
    assert math.isnan(shown(curves)["mean"][2])
    assert shown(curves, "b")["mean"][2] == 5.0


def test_rewinding_forgets_what_is_written_again() -> None:
    curves = filled([float(step) for step in range(1000)])
    generation = curves.generation
    add(curves, 500, -1.0)
    after = shown(curves)
    assert curves.generation == generation + 1
    assert (after["step"][-1], after["mean"][-1]) == (500, -1.0)
    assert after["step"] == sorted(set(after["step"]))
    add(curves, 0, 7.0)
    assert (shown(curves)["step"], shown(curves)["mean"]) == ([0], [7.0])


def test_what_is_new_is_told_by_bucket() -> None:
    curves = filled([float(step) for step in range(100)])
    add(curves, 100, 1.5)
    assert shown(curves, since=99)["mean"] == [99.0, 1.5]


def test_the_number_of_metrics_is_bounded() -> None:
    values: dict[str, Any] = {f"m{index}": 1.0 for index in range(MAX_METRICS + 50)}
    row = clean_row({"step": 1, **values, "x" * 200: 1.0})
    assert row is not None
    curves = Curves()
    curves.add(row)
    assert len(curves.names) == MAX_METRICS
    assert len(curves.dropped) == 50
