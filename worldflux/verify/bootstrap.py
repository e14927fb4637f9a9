"""How sure a mean, or a difference of means, is: a one-sided bootstrap bound that keeps its level.

The plain percentile bootstrap of few episodes passes chance more often than it says. Two
corrections mend that: resampled deviations are stretched by sqrt(n / (n - 1)), because a sample's
spread is too small by that, and divided by sqrt(chi2 / df), which turns a normal's tails into
Student's; df is that of the smaller sample. A fifth of alpha is kept in reserve for what so few
episodes cannot tell of their distribution: tests/verify/test_quick.py counts the false passes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_SPENT = 0.8  # share of alpha that the quantile takes


def difference_lower_bound(
    treated: Array, control: Array, alpha: float, seed: int, resamples: int = 10_000
) -> float:
    """Lower confidence bound, at level 1 - alpha, of mean(treated) - mean(control).

    Both samples `[n]` and `[m]`, each of two or more, are resampled independently with replacement
    (Efron and Tibshirani 1993, section 13.3), with the corrections above.
    """
    rng = np.random.default_rng(seed)
    centre = float(np.mean(treated) - np.mean(control))
    deviations = _deviations(treated, resamples, rng) - _deviations(control, resamples, rng)
    return centre + _quantile(deviations, min(len(treated), len(control)), alpha, rng)


def mean_lower_bound(sample: Array, alpha: float, seed: int, resamples: int = 10_000) -> float:
    """Lower confidence bound, at level 1 - alpha, of the mean of `sample` `[n]`, n at least 2."""
    rng = np.random.default_rng(seed)
    deviations = _deviations(sample, resamples, rng)
    return float(np.mean(sample)) + _quantile(deviations, len(sample), alpha, rng)


def _deviations(sample: Array, resamples: int, rng: np.random.Generator) -> Array:
    values = np.asarray(sample, np.float64)
    count = len(values)
    means = values[rng.integers(0, count, (resamples, count))].mean(axis=1)
    deviations: Array = (means - values.mean()) * np.sqrt(count / (count - 1))
    return deviations


def _quantile(deviations: Array, count: int, alpha: float, rng: np.random.Generator) -> float:
    freedom = count - 1
    tails = np.sqrt(rng.chisquare(freedom, len(deviations)) / freedom)
    return float(np.quantile(deviations / tails, _SPENT * alpha))
