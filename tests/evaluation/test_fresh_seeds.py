"""Fresh episodes begin at seeds that training and its evaluations never used."""

from __future__ import annotations

import pytest

from worldflux.envs.episode_seeds import episode_seed
from worldflux.evaluation.episodes import EVAL, VERIFY, fresh_seed, shares_of


def played(seed: int, shares: list[int]) -> set[int]:
    return {episode_seed(seed, i, e) for i, share in enumerate(shares) for e in range(share)}


@pytest.mark.parametrize("first", [EVAL, VERIFY])
@pytest.mark.parametrize("envs", [1, 16])
@pytest.mark.parametrize("evaluated", [0, 10, 70])
def test_no_training_seed_is_met(first: int, envs: int, evaluated: int) -> None:
    offsets = (-31, -16, 0, 19)
    centres = (500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000, 4_000_000, 2**32 - 20)
    for run_seed in (centre + offset for centre in centres for offset in offsets):
        trained = [4] * envs
        met = played(run_seed, trained)
        for copies in {min(32, max(1, evaluated)), evaluated or 1, envs}:
            met |= played(run_seed + 1_000_000, shares_of(evaluated, copies))
        for episodes in (20, 40):
            shares = shares_of(episodes, min(32, episodes))
            seed = fresh_seed(first, shares, run_seed, trained, evaluated)
            assert met.isdisjoint(played(seed, shares)), run_seed


def test_a_seed_of_a_later_training_episode_is_not_met_either() -> None:
    later = episode_seed(7, 0, 3)
    assert fresh_seed(later, [1], 7, [4], 0) != later
    assert fresh_seed(later, [1], 7, [3], 0) == later


@pytest.mark.parametrize("run_seed", [0, 1, 42, 999_000, 123_456_789])
def test_runs_keep_the_seeds_that_they_were_always_judged_on(run_seed: int) -> None:
    assert fresh_seed(EVAL, shares_of(20, 20), run_seed, [100], 10) == 2_000_000
    assert fresh_seed(VERIFY, shares_of(20, 20), run_seed, [100], 10) == 2_500_000
