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
    score, deviations = _score_deviations([task.normalised for task in tasks], resamples, rng)
    published = np.zeros(resamples)
    for task in tasks:
        noise = rng.standard_t(task.published_seeds - 1, resamples)
        published += (1.0 + task.published_error * noise) / len(tasks)
    ours = score + deviations
    low, high = np.quantile(ours, [alpha, 1 - alpha])
    difference_low, difference_high = np.quantile(ours - published, [alpha, 1 - alpha])
    return Comparison(score, float(low), float(high), float(difference_low), float(difference_high))


def _score_deviations(
    strata: Sequence[np.ndarray], resamples: int, rng: np.random.Generator
) -> tuple[float, np.ndarray]:
    """The interquartile mean over all strata, and its deviations, resampled in each stratum."""
    score = float(interquartile_mean(np.concatenate(strata)))
    drawn = [_resampled(column, resamples, rng) for column in strata]
    deviations = interquartile_mean(np.concatenate(drawn, axis=1)) - score
    return score, _stretched(deviations, strata, resamples, rng)


def _stretched(
    deviations: np.ndarray,
    strata: Sequence[np.ndarray],
    resamples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Resampled deviations `[resamples]` with the two corrections of few samples (see above)."""
    runs = np.array([len(column) for column in strata])
    deviations = deviations * np.sqrt((runs / (runs - 1)).mean())
    return deviations / _tails(int((runs - 1).sum()), resamples, rng)


@dataclass(frozen=True)
class Interval:
    """An estimate with a two-sided confidence interval.

    The bounds are None where resampling says nothing: a stratum has one run, or every run of one
    group beats every run of the other.
    """

    value: float
    low: float | None
    high: float | None


def score_interval(
    strata: Sequence[np.ndarray], alpha: float, seed: int = 0, resamples: int = 10_000
) -> Interval:
    """Interquartile mean of the runs of all strata `[n]` with its stratified bootstrap interval."""
    rng = np.random.default_rng(seed)
    if min(map(len, strata)) < 2:
        return Interval(float(interquartile_mean(np.concatenate(strata))), None, None)
    score, deviations = _score_deviations(strata, resamples, rng)
    low, high = np.quantile(score + deviations, [alpha / 2, 1 - alpha / 2])
    return Interval(score, float(low), float(high))


def improvement_interval(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    alpha: float,
    seed: int = 0,
    resamples: int = 2000,
) -> Interval:
    """Probability that a run of ours beats one of theirs, the mean over the strata `[n]`, `[m]`.

    P(X > Y) + P(X = Y) / 2 (Agarwal et al. 2021, section 4.3).
    """
    rng = np.random.default_rng(seed)
    pairs = list(zip(ours, theirs, strict=True))
    value = float(np.mean([_wins(x[None], y[None])[0] for x, y in pairs]))
    if min(map(len, [*ours, *theirs])) < 2 or value in (0, 1):
        return Interval(value, None, None)
    drawn = [_wins(_resampled(x, resamples, rng), _resampled(y, resamples, rng)) for x, y in pairs]
    deviations = _stretched(np.mean(drawn, axis=0) - value, [*ours, *theirs], resamples, rng)
    low, high = np.clip(np.quantile(value + deviations, [alpha / 2, 1 - alpha / 2]), 0, 1)
    return Interval(value, float(low), float(high))


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Share of the pairs of a row `[r, n]`, `[r, m]` that ours wins; a tie is half a win."""
    difference = ours[:, :, None] - theirs[:, None, :]
    shares: np.ndarray = ((difference > 0) + 0.5 * (difference == 0)).mean(axis=(1, 2))
    return shares


def profile(
    strata: Sequence[np.ndarray],
    levels: np.ndarray,
    alpha: float,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share of runs above each level `[k]`, and its pointwise interval (low, high), each `[k]`.

    Agarwal et al. 2021, section 4.2; resampled within the strata, without a correction.
    """
    rng = np.random.default_rng(seed)
    values = np.concatenate(strata)
    shares = (values[:, None] > levels).mean(axis=0)
    drawn = np.concatenate([_resampled(column, resamples, rng) for column in strata], axis=1)
    many = np.stack([(drawn > level).mean(axis=1) for level in levels], axis=1)
    low, high = np.quantile(many, [alpha / 2, 1 - alpha / 2], axis=0)
    return shares, low, high


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the middle half of the last axis: a quarter of the values is cut at either end."""
    cut = int(TRIMMED * values.shape[-1])
    middle: np.ndarray = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1)
    return middle
