"""The statistics behind the checks, deterministic: what actions decide, and how ends look."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SIDE = 16  # images are compared by the means of at most 16 x 16 patches
_POINTS, _SHUFFLES = 300, 100
_RIDGE = 0.1


def flat(values: NDArray[np.generic]) -> Floats:
    """Observations as rows of numbers `[N, D]`; images `[N, C, H, W]` are averaged over patches."""
    if values.ndim != 4:
        return values.reshape(len(values), math.prod(values.shape[1:])).astype(np.float64)
    rows, columns = values.shape[2:]
    tall, wide = max(1, rows // SIDE), max(1, columns // SIDE)
    cut = values[:, :, : rows // tall * tall, : columns // wide * wide]
    patches = cut.reshape(*values.shape[:2], rows // tall, tall, columns // wide, wide)
    return flat(patches.mean((3, 5), dtype=np.float64)[..., None])


def scaled(values: Floats) -> Floats:
    """Each column of `[N, D]` in its standard deviations; constant ones are left out."""
    spread = values.std(0)
    moving = spread > 1e-9 * (1.0 + np.abs(values).max(0))
    return np.asarray((values[:, moving] - values[:, moving].mean(0)) / spread[moving])


def effect(actions: Floats, before: Floats, change: Floats) -> float:
    """How surely random `actions` `[N, A]` decide the `change` `[N, D]` after `before` `[N, K]`.

    Of the change, what follows from `before` is taken away (kernel ridge regression); what is left
    is compared with the actions by the Hilbert-Schmidt independence criterion (Gretton et al.
    2005), in standard deviations of its values under shuffled pairs: about 0 without an effect.
    """
    chosen = np.linspace(0, len(actions) - 1, min(len(actions), _POINTS)).astype(int)
    acted, seen, change = scaled(actions[chosen]), scaled(before[chosen]), change[chosen]
    known = _kernel(seen) + _RIDGE * np.eye(len(chosen))
    rest = scaled(_RIDGE * np.linalg.solve(known, change - change.mean(0)))
    if not acted.size or not rest.size:
        return 0.0
    ours, theirs = _centred(acted), _centred(rest)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(chosen)) for _ in range(_SHUFFLES)]
    shuffled = [float((ours * theirs[np.ix_(order, order)]).sum()) for order in orders]
    above = float((ours * theirs).sum()) - float(np.mean(shuffled))
    return above / max(float(np.std(shuffled)), 1e-12)


def _kernel(values: Floats) -> Floats:
    """A Gaussian kernel `[N, N]` as wide as the mean distance."""
    squares = (values**2).sum(1)
    distance = np.maximum(squares[:, None] + squares[None] - 2 * values @ values.T, 0.0)
    return np.asarray(np.exp(-distance / max(float(distance.mean()), 1e-12)))


def _centred(values: Floats) -> Floats:
    kernel = _kernel(values)
    return np.asarray(kernel - kernel.mean(0) - kernel.mean(1)[:, None] + kernel.mean())


def distinct(some: Floats, others: Floats) -> float:
    """Share of the rows `some` `[N, D]` that lie nearer to each other than to `others` `[M, D]`.

    0.5 or less where both are alike and as many; near 1 where they look different. One of the
    others is drawn for each of `some`.
    """
    chosen = np.random.default_rng(0).permutation(len(others))[: len(some)]
    both = scaled(np.concatenate([some, others[chosen]]))
    if not both.size:
        return 0.0
    own, other = both[: len(some)], both[len(some) :]
    among = ((own[:, None] - own[None]) ** 2).sum(-1)
    np.fill_diagonal(among, np.inf)
    across = ((own[:, None] - other[None]) ** 2).sum(-1)
    return float((among.min(1) < across.min(1)).mean())
