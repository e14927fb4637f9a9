"""Is an agent no worse than a published one: interquartile mean, stratified bootstrap, margin.

Scores are normalised a task: 0 is a random policy's mean return, 1 the published mean at the same
number of frames. Ours is the interquartile mean over all runs of all tasks, resampled within each
task (Agarwal et al. 2021, sections 4.2 and 4.3). Two corrections make the interval honest with few
seeds: the resampled deviations are stretched by sqrt(n / (n - 1)), because a sample's spread is too
small by that, and divided by sqrt(chi2 / df), which turns a normal's tails into Student's. The
published mean is uncertain too: it is drawn from Student's t with the published spread and seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
TRIMMED = 0.25


@dataclass(frozen=True)
class TaskScores:
    """One task at one number of frames: our returns `[n]`, a run each, and the published ones.

    `published_sd` is the population deviation over `published_seeds`; `random` a random policy's
    mean return.
    """

    task: str
    returns: Array
    random: float
    published_mean: float
    published_sd: float
    published_seeds: int

    @property
    def scale(self) -> float:
        """What the published agent gained over a random policy."""
        return self.published_mean - self.random

    @property
    def normalised(self) -> Array:
        """Our returns with 0 for a random policy and 1 for the published mean."""
        scores: Array = (np.asarray(self.returns, np.float64) - self.random) / self.scale
        return scores

    @property
    def published_error(self) -> float:
        """Standard error of the published mean, normalised."""
        return self.published_sd / np.sqrt(self.published_seeds - 1) / abs(self.scale)


@dataclass(frozen=True)
class Comparison:
    """Our interquartile mean (1 is the published mean), and how far above the published it is.

    `low` and `high` bound the score, `difference_low` and `difference_high` the difference, each
    one-sided at confidence 1 - alpha.
    """

    score: float
    low: float
    high: float
    difference_low: float
    difference_high: float


def compare(
    tasks: Sequence[TaskScores], alpha: float, seed: int = 0, resamples: int = 10_000
) -> Comparison:
    """Compare our runs with the published means; every task needs two runs and two seeds."""
    rng = np.random.default_rng(seed)
    scores = [task.normalised for task in tasks]
    score = float(interquartile_mean(np.concatenate(scores)))
    drawn = [column[rng.integers(0, len(column), (resamples, len(column)))] for column in scores]
    deviations = interquartile_mean(np.concatenate(drawn, axis=1)) - score
    runs = np.array([len(column) for column in scores])
    freedom = int((runs - 1).sum())
    deviations *= np.sqrt((runs / (runs - 1)).mean())
    deviations /= np.sqrt(rng.chisquare(freedom, resamples) / freedom)
    published = np.zeros(resamples)
    for task in tasks:
        noise = rng.standard_t(task.published_seeds - 1, resamples)
        published += (1.0 + task.published_error * noise) / len(tasks)
    ours = score + deviations
    low, high = np.quantile(ours, [alpha, 1 - alpha])
    difference_low, difference_high = np.quantile(ours - published, [alpha, 1 - alpha])
    return Comparison(score, float(low), float(high), float(difference_low), float(difference_high))


def interquartile_mean(values: Array) -> Array:
    """Mean of the middle half of the last axis: a quarter of the values is cut at either end."""
    cut = int(TRIMMED * values.shape[-1])
    middle: Array = np.sort(values, axis=-1)[..., cut : values.shape[-1] - cut].mean(axis=-1)
    return middle
