"""Evaluation episodes: whole or cut, and kept for open-loop prediction, in any number of copies."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.evaluation.episodes import play_episodes

LENGTH = 6


class Counting(gymnasium.Env[Any, Any]):
    """Observes the seed of the episode and its own steps; ends after `length`, or never."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, length: int | None) -> None:
        self.length = length

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.seed, self.count = seed, 0
        return self._observed(), {}

    def step(self, action: Any) -> Any:
        self.count += 1
        return self._observed(), 1.0, self.count == self.length, False, {}

    def _observed(self) -> Any:
        return np.array([self.seed or 0, self.count], np.float32)


def environments(count: int, length: int | None) -> VectorEnvironment:
    return VectorEnvironment("Counting", lambda _: Counting(length), count)


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_an_endless_episode_is_cut_and_counted(copies: int) -> None:
    envs = environments(copies, None)
    results = play_episodes(None, envs, 5, seed=3, max_steps=10)
    envs.close()
    assert results.returns.tolist() == results.lengths.tolist() == [10] * 5
    assert results.cut == 5


@pytest.mark.parametrize(("limit", "cut", "length"), [(7, 0, 6), (6, 0, 6), (5, 4, 5)])
def test_only_what_is_longer_is_cut(limit: int, cut: int, length: int) -> None:
    envs = environments(2, LENGTH)
    results = play_episodes(None, envs, 4, seed=3, max_steps=limit)
    assert (results.cut, results.lengths.tolist()) == (cut, [length] * 4)
    assert play_episodes(None, envs, 2, seed=3).lengths.tolist() == [LENGTH] * 2
    envs.close()


def test_the_environments_own_time_limit_cuts_nothing() -> None:
    make = make_environment
    envs = VectorEnvironment("Pendulum-v1", lambda _: make("Pendulum-v1", max_episode_steps=6), 2)
    assert [play_episodes(None, envs, 2, seed=3, max_steps=n).cut for n in (7, 6, 5)] == [0, 0, 2]
    envs.close()


@pytest.mark.parametrize("copies", [1, 2, 4, 9])
def test_the_first_episodes_are_kept_whatever_the_number_of_copies(copies: int) -> None:
    envs = environments(copies, LENGTH)
    kept = play_episodes(None, envs, 5, seed=3, record_episodes=4).recorded
    envs.close()
    assert len(kept) == 4
    for episode in kept:
        assert len(episode) == LENGTH
        assert episode.obs["obs"][:, 1].tolist() == list(range(LENGTH + 1))
        assert len(set(episode.obs["obs"][:, 0])) == 1  # one seed: one episode
    assert len({episode.obs["obs"][0, 0] for episode in kept}) == 4
