"""Which sequences to sample: uniform over all that are held, or newer ones more often.

A row has one number: step * streams + stream, so that the rows of a sequence are `streams` apart,
and row r is at place r % capacity of the ring.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_REJECTION_ROUNDS = 8
_DRAWN_BEYOND = 8  # of the missing ones, and a quarter more: one round is then mostly enough


class SequenceDraw:
    """Draws the last rows of sequences from a ring, with its own random stream.

    `since_first` `[capacity]` is a view of the ring: rows since the stream's last `is_first`. A
    sequence that ended `half_life` rows before the newest is half as likely as it.
    """

    def __init__(
        self, since_first: np.ndarray, num_envs: int, seed: int, half_life: float | None
    ) -> None:
        self._since_first, self._num_envs = since_first, num_envs
        self._half_life = None if half_life is None else half_life / num_envs  # in steps
        self.rng = np.random.default_rng(seed)
        self.keep: Callable[[np.ndarray], np.ndarray] | None = None  # probability of rows to stay

    def last_rows(
        self, count: int, seq_len: int, steps_written: int, *, within_episode: bool
    ) -> np.ndarray | None:
        """Numbers `[count]` of last rows; None where no such sequence is held.

        By rejection first, whose cost does not grow with the replay, then from the list of all
        valid ones. Both give every valid sequence the same weight.
        """
        lowest = self._lowest(seq_len, steps_written)
        found = np.empty(0, np.int64)
        if lowest >= steps_written:
            return None
        for _ in range(_REJECTION_ROUNDS):
            missing = count - len(found)
            rows = self._draw(missing + missing // 4 + _DRAWN_BEYOND, lowest, steps_written)
            if within_episode:
                since = self._since_first[rows % len(self._since_first)]
                rows = rows[since >= seq_len - 1]
            if self.keep is not None:
                rows = rows[self.rng.random(len(rows)) < self.keep(rows)]
            found = rows[:count] if len(found) == 0 else np.append(found, rows[:missing])
            if len(found) == count:
                return found
        valid = self.valid_last_rows(seq_len, steps_written, within_episode=within_episode)
        if len(valid) == 0:
            return None
        ages = steps_written - 1 - valid // self._num_envs
        kept = None if self.keep is None else self.keep(valid)
        chosen = choose(self.rng, ages, count - len(found), self._half_life, kept)
        return np.append(found, valid[chosen])

    def valid_last_rows(
        self, seq_len: int, steps_written: int, *, within_episode: bool
    ) -> np.ndarray:
        """Numbers of every row that ends a sequence of `seq_len` rows, in order."""
        steps = np.array([self._lowest(seq_len, steps_written), steps_written])
        rows = np.arange(*(steps * self._num_envs))
        if not within_episode:
            return rows
        return rows[self._since_first[rows % len(self._since_first)] >= seq_len - 1]

    def longest(self, steps_written: int, within_episode: bool) -> int:
        held = min(steps_written, len(self._since_first) // self._num_envs)
        if not within_episode or not held:
            return held
        return min(held, 1 + int(self._since_first[: held * self._num_envs].max()))

    def _lowest(self, seq_len: int, steps_written: int) -> int:
        """The first step with `seq_len - 1` held ones before it."""
        oldest = max(0, steps_written - len(self._since_first) // self._num_envs)
        return oldest + seq_len - 1

    def _draw(self, count: int, lowest: int, steps_written: int) -> np.ndarray:
        """Numbers of rows of the steps lowest..steps_written - 1, before any is rejected."""
        streams = self._num_envs
        if self._half_life is None:
            return self.rng.integers(lowest * streams, steps_written * streams, count)
        ages = draw_ages(self.rng, count, steps_written - lowest, self._half_life)
        return (steps_written - 1 - ages) * streams + self.rng.integers(0, streams, count)


def draw_ages(rng: np.random.Generator, count: int, held: int, half_life: float) -> np.ndarray:
    """`count` ages in 0..held - 1 with P(age) proportional to `2 ** (-age / half_life)`.

    The floor of a truncated exponential is a truncated geometric, so that one uniform number an
    age is enough, however many are held.
    """
    tail = np.exp2(-held / half_life)
    ages = np.floor(-half_life * np.log2(1.0 - rng.random(count) * (1.0 - tail)))
    return np.minimum(ages.astype(np.int64), held - 1)


def choose(
    rng: np.random.Generator,
    ages: np.ndarray,
    count: int,
    half_life: float | None,
    kept: np.ndarray | None = None,
) -> np.ndarray:
    """Positions `[count]` in a list of ages, by the same weights; uniform without a half-life.

    `kept` are factors on the weights.
    """
    if half_life is None and kept is None:
        return rng.integers(0, len(ages), count)
    weights = np.ones(len(ages)) if kept is None else kept
    if half_life is not None:
        weights = weights * np.exp2(-(ages - ages.min()) / half_life)
    return rng.choice(len(ages), count, p=weights / weights.sum())


def sequence_hint(longest: int) -> str:
    """What to set where sequences are longer than all that is held."""
    return (
        f"train on sequences of at most {longest} steps: training.sequence_length (where the "
        "model plans, architecture.horizon + 1)"
    )
