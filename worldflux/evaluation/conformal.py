"""Conformal intervals where whole episodes are exchangeable, and what a score says of them.

Legend: E episodes, W windows (starts) of an episode; NaN is a window that the episode is too short
for. A radius r says "imagined +- r"; errors are absolute.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.9
LEAST_EPISODES = 20  # half of them give a finite interval at LEVEL
_BLOCKS = 20


def radius(errors: np.ndarray, level: float = LEVEL) -> float:
    """The half width that covers a random window of a fresh episode with probability `level`.

    Errors `[E, W]`. Each episode weighs 1 / (E + 1), shared by its windows, and the fresh one as
    much at infinity: hierarchical conformal prediction (Lee, Barber, Willett 2023). Infinite where
    episodes are too few.
    """
    present = np.isfinite(errors)
    counts = present.sum(1, keepdims=True)
    weights = present / np.maximum(counts, 1) / (int((counts > 0).sum()) + 1)
    order = np.argsort(errors[present], kind="stable")
    covered = np.cumsum(weights[present][order])
    first = int(np.searchsorted(covered, level - 1e-9))
    return float(errors[present][order][first]) if first < len(covered) else float("inf")


def coverage(errors: np.ndarray, half_width: float) -> np.ndarray:
    """Share of each episode's windows that are within the half width: `[E]`, NaN without any."""
    return _mean_of_windows(errors, errors <= half_width)


def interval_score(errors: np.ndarray, half_width: float, level: float = LEVEL) -> np.ndarray:
    """How good an interval is for each episode `[E]`, less is better: its width, and 2 / alpha for
    each unit that the truth lies outside (Gneiting and Raftery 2007, section 6.2)."""
    excess = np.maximum(errors - half_width, 0.0)
    return _mean_of_windows(errors, 2 * half_width + 2 / (1 - level) * excess)


def _mean_of_windows(errors: np.ndarray, values: np.ndarray) -> np.ndarray:
    present = np.isfinite(errors)
    with np.errstate(invalid="ignore"):
        means: np.ndarray = np.where(present, values, 0.0).sum(1) / present.sum(1)
    return means


def held_out(errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and interval score of each episode `[E]`, by the radius of the other half."""
    halves = errors[::2], errors[1::2]
    pairs = list(zip(halves, map(radius, reversed(halves)), strict=True))
    return (
        np.concatenate([coverage(half, r) for half, r in pairs]),
        np.concatenate([interval_score(half, r) for half, r in pairs]),
    )


@dataclass(frozen=True)
class FallingMap:
    """A score -> the share of predictions that held at such scores; less, the larger the score.

    Linear between knots, and 0 from the largest score of the calibration on: nobody has seen what
    holds there.
    """

    scores: list[float]
    shares: list[float]

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        return np.interp(scores, self.scores, self.shares)

    @classmethod
    def of(cls, scores: np.ndarray, held: np.ndarray) -> FallingMap:
        """Isotonic regression of `held` `[n]` in [0, 1] on `scores` `[n]`, in blocks of both."""
        parts = np.array_split(np.argsort(scores, kind="stable"), min(_BLOCKS, len(scores)))
        pools: list[list[float]] = []
        for part in parts:
            pools.append([float(held[part].mean())])
            while len(pools) > 1 and np.mean(pools[-2]) <= np.mean(pools[-1]):
                pools[-2:] = [pools[-2] + pools[-1]]  # pool adjacent violators
        shares = [float(np.mean(pool)) for pool in pools for _ in pool]
        middles = [float(np.median(scores[part])) for part in parts]
        return cls([*middles, float(scores.max()) + 1e-6], [*shares, 0.0])
