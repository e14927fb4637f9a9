"""Decimation: bounded, ordered, and no peak lost."""

from __future__ import annotations

import itertools
import math
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.dashboard.series import Point, Series


def filled(values: list[float | None], capacity: int = 512) -> Series:
    series = Series(capacity)
    for step, value in enumerate(values):
        series.add(Point(step, None, None, value))
    return series


def test_a_hundred_thousand_points_become_a_thousand_and_keep_every_spike() -> None:
    generator = random.Random(0)
    values = [generator.gauss(0, 1) for _ in range(100_000)]
    spikes = {12_345: 50.0, 12_346: -50.0, 99_998: 70.0}
    for step, value in spikes.items():
        values[step] = value
    points = filled(values).points(1024)
    assert len(points) <= 1026
    assert points[0].step == 0
    assert points[-1].step == 99_999
    assert all(a.step < b.step for a, b in itertools.pairwise(points))
    by_step = {point.step: point.value for point in points}
    assert spikes.items() <= by_step.items()


def test_resolution_is_even_over_the_history() -> None:
    points = filled([math.sin(step) for step in range(50_000)]).points(1024)
    gaps = [b.step - a.step for a, b in itertools.pairwise(points)]
    assert max(gaps) <= 2 * 50_000 / 256


@given(
    values=st.lists(st.none() | st.floats(-1e6, 1e6), min_size=1, max_size=300),
    limit=st.integers(2, 400),
)
@settings(max_examples=100, deadline=None)
def test_extremes_ends_and_order_always_survive(values: list[float | None], limit: int) -> None:
    points = filled(values, capacity=8).points(limit)
    steps = [point.step for point in points]
    assert steps == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] == len(values) - 1
    assert len(points) <= max(limit, 16) + 2
    finite = [value for value in values if value is not None]
    shown = [point.value for point in points if point.value is not None]
    if finite:
        assert (min(shown), max(shown)) == (min(finite), max(finite))


def test_few_points_are_kept_exactly_with_their_gaps() -> None:
    values = [1.0, None, 3.0, float(2**53), None]
    assert [point.value for point in filled(values).points(1024)] == values


def test_rewinding_forgets_what_is_written_again() -> None:
    series = filled([float(step) for step in range(1000)], capacity=64)
    series.rewind(500)
    # Exact but for the bucket that the cut goes through.
    assert 499 - 16 <= series.points(1024)[-1].step <= 499
    series.add(Point(500, None, None, -1.0))
    points = series.points(1024)
    assert (points[-1].step, points[-1].value) == (500, -1.0)
    assert [point.step for point in points] == sorted({point.step for point in points})
    series.rewind(0)
    assert series.points(1024) == []
