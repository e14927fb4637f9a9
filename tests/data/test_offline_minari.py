"""Minari data sets: episodes that are not whole, and spaces that are not the environment's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer

from worldflux.data.offline import copy_episodes
from worldflux.data.recorded import KnownEnvironment, open_offline
from worldflux.data.replay import ReplayBuffer
from worldflux.errors import ConfigurationError

OBSERVED = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTED = spaces.Box(-2.0, 2.0, (1,), np.float32)
ID = "worldflux/made-v0"


def episode(number: int, steps: int = 5, obs: int = 6, rewards: int = 5, end: bool = False) -> Any:
    last = [False] * (steps - 1) + [True]
    never = [False] * steps
    return EpisodeBuffer(
        id=number,
        observations=np.arange(obs * 3, dtype=np.float32).reshape(obs, 3),
        actions=np.full((steps, 1), 1.5, np.float32),
        rewards=[1.0] * rewards,
        terminations=last if end else never,
        truncations=never if end else last,
    )


@pytest.fixture(autouse=True)
def data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))


def write(*episodes: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            ID, list(episodes), observation_space=OBSERVED, action_space=ACTED
        )


def test_an_episode_with_one_observation_too_few_keeps_what_needs_none() -> None:
    write(episode(0), episode(1, obs=5), episode(2, obs=5, end=True))
    buffer = ReplayBuffer(18, (3,), 1)
    told = copy_episodes(open_offline("minari", ID), buffer)
    assert (told.recorded.transitions, told.recorded.rewards) == (15, 15)
    assert (told.replay.transitions, told.replay.rewards) == (14, 14)
    assert (told.replay.true_ends, told.replay.time_limits) == (1, 2)
    assert len(told.notes) == 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rewards": 4}, "episode 1: 5 actions, 4 rewards and 5 ends"),
        ({"obs": 8}, "episode 1: an episode of 5 actions has 6 observations .* not 8"),
    ],
)
def test_other_lengths_that_disagree_are_refused(wrong: dict[str, int], message: str) -> None:
    write(episode(0), episode(1, **wrong))
    with pytest.raises(ConfigurationError, match=message):
        copy_episodes(open_offline("minari", ID), ReplayBuffer(20, (3,), 1))


def test_actions_of_other_bounds_are_refused() -> None:
    write(episode(0))
    for high, fits in ((2.0, True), (2.5, False)):
        known = KnownEnvironment("Env-v0", OBSERVED, spaces.Box(-high, high, (1,)), None)
        if fits:
            assert open_offline("minari", ID, known).num_rows == 6
        else:
            with pytest.raises(ConfigurationError, match=r"recorded actions .* are not those of"):
                open_offline("minari", ID, known)
