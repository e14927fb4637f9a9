"""Which sequence to sample: uniform over all, or newer ones more often."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def draw_ages(rng: np.random.Generator, count: int, held: int, half_life: float) -> Array:
    """`count` ages in 0..held - 1 with P(age) proportional to `2 ** (-age / half_life)`.

    The floor of a truncated exponential is a truncated geometric, so that one uniform number an
    age is enough, however many are held.
    """
    tail = np.exp2(-held / half_life)
    ages = np.floor(-half_life * np.log2(1.0 - rng.random(count) * (1.0 - tail)))
    return np.minimum(ages.astype(np.int64), held - 1)


def choose(
    rng: np.random.Generator, ages: Array, count: int, half_life: float | None
) -> NDArray[np.int64]:
    """Positions `[count]` in a list of ages, by the same weights; uniform without a half-life."""
    if half_life is None:
        return rng.integers(0, len(ages), count)
    weights = np.exp2(-(ages - ages.min()) / half_life)
    return rng.choice(len(ages), count, p=weights / weights.sum())
