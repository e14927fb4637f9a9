"""Episodes that end: where in a sequence an end may be, and what is learned of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import as_source
from worldflux.models.bmpc import BMPCConfig
from worldflux.models.tdmpc2.losses import transitions

from .builders import SMALL, small_config, small_model

STEPS = 6  # of each episode, which then ends by itself


def corridor(episodes: int) -> ReplayBuffer:
    """Episodes of STEPS steps whose observation says how far they are; each step's reward is 1."""
    buffer = ReplayBuffer(1000, (5,), 2)
    rng = np.random.default_rng(0)
    for _ in range(episodes):
        obs = np.tile(np.linspace(-1, 1, STEPS + 1, dtype=np.float32)[:, None], 5)
        actions = rng.uniform(-1, 1, (STEPS, 2)).astype(np.float32)
        buffer.add_episode(obs, actions, np.ones(STEPS, np.float32), np.arange(STEPS) == STEPS - 1)
    return buffer


def test_an_episode_may_end_at_every_step_of_a_sequence() -> None:
    model = small_model(episodic=True)
    batch = as_source(corridor(20), model).sample(500, 4, torch.device("cpu"))
    assert isinstance(batch.obs, torch.Tensor)
    data = transitions(batch, batch.obs, None, 3)
    ends = (data.terminated * data.valid).mean(1)
    assert torch.allclose(ends, torch.full((3,), 1 / (STEPS + 1)), atol=0.05)
    after = data.terminated[:-1].cumsum(0) > 0
    assert not data.valid[1:][after].any()


def test_without_ends_sequences_stay_in_one_episode() -> None:
    batch = as_source(corridor(20), small_model()).sample(500, 4, torch.device("cpu"))
    assert not batch.firsts[:, 1:].any()


@pytest.mark.parametrize("crosses", [True, False])
def test_bmpc_crosses_ends_where_it_learns_them(crosses: bool) -> None:
    assert BMPCConfig(**SMALL, episodic=crosses).training_recipe().crosses_episodes == crosses
    assert small_config(episodic=crosses).training_recipe().crosses_episodes == crosses
