"""Intervals over exchangeable episodes: coverage over random draws, scores, and the falling map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.evaluation.conformal import (
    FallingMap,
    coverage,
    held_out,
    interval_score,
    radius,
)


def drawn(rng: np.random.Generator, episodes: int, windows: int, shared: float) -> np.ndarray:
    """Errors `[E, W]` whose episodes differ in scale, and of which some windows are missing."""
    scales = np.exp(shared * rng.normal(size=(episodes, 1)))
    errors = scales * np.abs(rng.standard_t(4, size=(episodes, windows)))
    lengths = rng.integers(1, windows + 1, size=(episodes, 1))
    return np.where(np.arange(windows) < lengths, errors, np.nan)


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    windows=st.integers(1, 12),
    shared=st.floats(0.0, 1.5),
)
def test_fresh_episodes_are_covered_as_promised(seed: int, windows: int, shared: float) -> None:
    """Mean over calibrations, so that what is random of one of them does not count."""
    rng = np.random.default_rng(seed)
    covered = []
    for _ in range(150):
        half_width = radius(drawn(rng, 100, windows, shared))
        covered.append(np.nanmean(coverage(drawn(rng, 200, windows, shared), half_width)))
    assert 0.88 <= np.mean(covered) <= 0.92


def test_an_episode_weighs_the_same_however_many_windows_it_has() -> None:
    """Ten windows of one bad episode are no more than the one window of each good one."""
    errors = np.full((20, 10), np.nan)
    errors[:, 0] = 1.0
    errors[0] = 100.0
    assert radius(errors) == 1.0


def test_too_few_episodes_promise_nothing() -> None:
    assert radius(np.ones((8, 50))) == np.inf
    assert radius(np.ones((9, 50))) == 1.0


def test_a_missing_window_changes_nothing() -> None:
    errors = np.random.default_rng(0).exponential(size=(30, 4))
    padded = np.concatenate([errors, np.full((30, 3), np.nan)], 1)
    assert radius(padded) == radius(errors)
    for one, other in zip(held_out(padded), held_out(errors), strict=True):
        np.testing.assert_allclose(one, other)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_best_interval_is_the_quantile(seed: int) -> None:
    errors = np.random.default_rng(seed).exponential(size=(1, 4000))
    best = interval_score(errors, float(np.quantile(errors, 0.9)))
    for factor in (0.5, 1.5):
        other = interval_score(errors, factor * float(np.quantile(errors, 0.9)))
        assert other[0] > best[0]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_the_map_falls_from_the_share_that_held_to_nothing(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.exponential(size=count)
    held = (rng.uniform(size=count) < 0.9).astype(float)
    shares = FallingMap.of(scores, held)
    read = shares(np.linspace(0, 3 * scores.max(), 200))
    assert (np.diff(read) <= 1e-12).all()
    assert 0.0 <= read.min() <= read.max() <= 1.0
    assert read[-1] == 0.0


def test_the_map_is_calibrated_where_it_was_fitted() -> None:
    rng = np.random.default_rng(1)
    scores = rng.uniform(0, 2, 20_000)
    held = (rng.uniform(size=20_000) < 1 - 0.3 * scores).astype(float)
    read = FallingMap.of(scores, held)(np.array([0.3, 1.0, 1.7]))
    assert read == pytest.approx([0.91, 0.7, 0.49], abs=0.03)
