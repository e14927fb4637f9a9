"""Seeds of episodes that an agent has met neither in training nor in its evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from worldflux.envs.episode_seeds import episode_seed

EVAL, VERIFY = 2_000_000, 2_500_000
_FURTHER = 3_000_000


def evaluation_seed(run_seed: int) -> int:
    """What the evaluations of a run in training reset with."""
    return run_seed + 1_000_000


def shares_of(episodes: int, num_envs: int) -> list[int]:
    """How many of `episodes` each environment plays."""
    return [len(range(i, episodes, num_envs)) for i in range(num_envs)]


def fresh_seed(
    first: int, shares: Sequence[int], run_seed: int, trained: Sequence[int], evaluated: int
) -> int:
    """The seed to reset with: `first`, or a later one where training met one of its episodes.

    Args:
        first: EVAL or VERIFY.
        shares: episodes that each environment is going to play.
        run_seed: what the training environments were reset with.
        trained: episodes that each of them has begun.
        evaluated: episodes of an evaluation in training, in however many environments.
    """
    met = _seeds(run_seed, trained)
    begun = evaluation_seed(run_seed)
    met |= set(range(begun, begun + evaluated))
    for num_envs in {32, max(1, len(trained))}:
        met |= _seeds(begun, shares_of(evaluated, num_envs))
    while not met.isdisjoint(_seeds(first, shares)):
        first += _FURTHER
    return first


def _seeds(seed: int, shares: Sequence[int]) -> set[int]:
    """The seeds of the episodes that environments play after `reset(seed)`."""
    return {episode_seed(seed, i, e) for i, share in enumerate(shares) for e in range(share)}
