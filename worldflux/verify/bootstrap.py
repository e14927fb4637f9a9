"""How sure a difference of means is: a one-sided percentile bootstrap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def difference_lower_bound(
    treated: Array, control: Array, alpha: float, seed: int, resamples: int = 10_000
) -> float:
    """Lower confidence bound, at level 1 - alpha, of mean(treated) - mean(control).

    Both samples `[n]` and `[m]` are resampled with replacement, independently; the bound is the
    alpha-quantile of the resampled differences (Efron and Tibshirani 1993, section 13.3).
    """
    rng = np.random.default_rng(seed)
    return float(
        np.quantile(_means(treated, resamples, rng) - _means(control, resamples, rng), alpha)
    )


def mean_lower_bound(sample: Array, alpha: float, seed: int, resamples: int = 10_000) -> float:
    """Lower confidence bound, at level 1 - alpha, of the mean of `sample` `[n]`."""
    return float(np.quantile(_means(sample, resamples, np.random.default_rng(seed)), alpha))


def _means(sample: Array, resamples: int, rng: np.random.Generator) -> Array:
    drawn = rng.integers(0, len(sample), (resamples, len(sample)))
    means: Array = np.asarray(sample)[drawn].mean(axis=1)
    return means
