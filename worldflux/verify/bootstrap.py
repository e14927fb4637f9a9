"""How sure a mean, or a comparison of means, is: bootstraps that keep their level with few samples.

The plain percentile bootstrap of few samples passes chance more often than it says. Two corrections
fix that: resampled deviations are stretched by sqrt(n / (n - 1)), because a sample's spread is too
small by that, and divided by sqrt(chi2 / df), which turns a normal's tails into Student's.
tests/verify counts the false passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

TRIMMED = 0.25
# The rest of alpha is kept in reserve for what few episodes cannot show of their distribution.
_SHARE_OF_ALPHA = 0.8


def mean_lower_bound(sample: np.ndarray, alpha: float, seed: int, resamples: int = 10_000) -> float:
    """Lower confidence bound, at level 1 - alpha, of the mean of `sample` `[n]`, n at least 2."""
    rng = np.random.default_rng(seed)
    deviations = _deviations(sample, resamples, rng)
    return float(np.mean(sample)) + _lower(deviations, len(sample), alpha, rng)


def difference_lower_bound(
    treated: np.ndarray, control: np.ndarray, alpha: float, seed: int, resamples: int = 10_000
) -> float:
    """Lower confidence bound, at level 1 - alpha, of mean(treated) - mean(control).

    Both samples `[n]` and `[m]`, each of two or more, are resampled independently with replacement
    (Efron and Tibshirani 1993, section 13.3).
    """
    rng = np.random.default_rng(seed)
    centre = float(np.mean(treated) - np.mean(control))
    deviations = _deviations(treated, resamples, rng) - _deviations(control, resamples, rng)
    return centre + _lower(deviations, min(len(treated), len(control)), alpha, rng)


def _deviations(sample: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    values = np.asarray(sample, np.float64)
    count = len(values)
    means = _resampled(values, resamples, rng).mean(axis=1)
    deviations: np.ndarray = (means - values.mean()) * np.sqrt(count / (count - 1))
    return deviations


def _lower(deviations: np.ndarray, count: int, alpha: float, rng: np.random.Generator) -> float:
    tailed = deviations / _tails(count - 1, len(deviations), rng)
    return float(np.quantile(tailed, _SHARE_OF_ALPHA * alpha))


def _resampled(values: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    return values[rng.integers(0, len(values), (resamples, len(values)))]


def _tails(freedom: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    tails: np.ndarray = np.sqrt(rng.chisquare(freedom, resamples) / freedom)
    return tails


@dataclass(frozen=True)
class TaskScores:
    """One task at one number of frames: our returns `[n]`, one per run, and the published ones.

    `published_sd` is the population deviation over `published_seeds`; `random` a random policy's
    mean return. Normalised, 0 is a random policy and 1 the published mean.
    """

    returns: np.ndarray
    random: float
    published_mean: float
    published_sd: float
    published_seeds: int

    @property
    def scale(self) -> float:
        """What the published agent gained over a random policy."""
        return self.published_mean - self.random

    @property
    def normalised(self) -> np.ndarray:
        """Our returns `[n]`, normalised."""
        scores: np.ndarray = (np.asarray(self.returns, np.float64) - self.random) / self.scale
        return scores

    @property
    def published_error(self) -> float:
        """Standard error of the published mean, normalised."""
        return self.published_sd / np.sqrt(self.published_seeds - 1) / abs(self.scale)


@dataclass(frozen=True)
class Comparison:
    """Our interquartile mean (1 is the published mean) and its difference from the published one.

    Each bound is one-sided at confidence 1 - alpha.
    """

    score: float
    low: float
    high: float
    difference_low: float
    difference_high: float


def compare(
    tasks: Sequence[TaskScores], alpha: float, seed: int = 0, resamples: int = 10_000
) -> Comparison:
    """Compare our runs with the published means; every task needs two runs and two seeds.

    Our score is the interquartile mean over all runs of all tasks, resampled within each task
    (Agarwal et al. 2021, sections 4.2 and 4.3). The published mean is uncertain too: it is drawn
    from Student's t with the published spread and number of seeds.
    """
    rng = np.random.default_rng(seed)
    scores = [task.normalised for task in tasks]
    score = float(interquartile_mean(np.concatenate(scores)))
    drawn = [_resampled(column, resamples, rng) for column in scores]
    deviations = interquartile_mean(np.concatenate(drawn, axis=1)) - score
    runs = np.array([len(column) for column in scores])
    deviations *= np.sqrt((runs / (runs - 1)).mean())
    deviations /= _tails(int((runs - 1).sum()), resamples, rng)
    published = np.zeros(resamples)
    for task in tasks:
        noise = rng.standard_t(task.published_seeds - 1, resamples)
        published += (1.0 + task.published_error * noise) / len(tasks)
    ours = score + deviations
    low, high = np.quantile(ours, [alpha, 1 - alpha])
    difference_low, difference_high = np.quantile(ours - published, [alpha, 1 - alpha])
    return Comparison(score, float(low), float(high), float(difference_low), float(difference_high))


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the last axis: a quarter of the values is cut at either end."""
    cut = int(TRIMMED * values.shape[-1])
    middle: np.ndarray = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1)
    return middle
