"""What a Trainer takes as data, and how it samples it: as the model's recipe says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_family import LineConfig, LineModel

from worldflux import create_world_model
from worldflux.core.config import TrainingRecipe
from worldflux.data.sources import ReplaySource
from worldflux.errors import ConfigurationError
from worldflux.training import ReplayBuffer, Trainer, TrainingConfig
from worldflux.training.data import create_random_buffer


def short_episodes(lengths: tuple[int, ...] = (5,) * 20) -> ReplayBuffer:
    buffer, rng = ReplayBuffer(1000, (3,), 1), np.random.default_rng(0)
    for steps in lengths:
        obs, actions = rng.standard_normal((steps + 1, 3)), rng.uniform(-1, 1, (steps, 1))
        buffer.add_episode(obs, actions, np.ones(steps), np.arange(steps) == steps - 1)
    return buffer


class Crossing(LineConfig):
    def training_recipe(self) -> TrainingRecipe:
        return TrainingRecipe(4, 16, 1e-2, 10.0, 20, False, 1.0, crosses_episodes=True)


def trainer(folder: Path, config: LineConfig, length: int = 16) -> Trainer:
    settings = {"total_steps": 2, "batch_size": 4, "sequence_length": length, "device": "cpu"}
    return Trainer(LineModel(config), TrainingConfig(**settings, output_dir=str(folder)))


def test_a_replay_is_sampled_as_the_recipe_says(tmp_path: Path) -> None:
    crossing = trainer(tmp_path / "a", Crossing(obs_shape=(3,), action_dim=1))
    source = crossing.attach(short_episodes())
    assert isinstance(source, ReplaySource)
    assert source.sample(64, 16, torch.device("cpu")).firsts[:, 1:].any()
    assert crossing.train(short_episodes()).step == 2
    within = trainer(tmp_path / "b", LineConfig(obs_shape=(3,), action_dim=1))
    with pytest.raises(ConfigurationError, match="no sequence of 16 steps") as caught:
        within.train(short_episodes((5, 9, 7)))
    assert "at most 10 steps: training.sequence_length" in str(caught.value.hint)


def test_dreamer_learns_from_episodes_shorter_than_its_sequences(tmp_path: Path) -> None:
    model = create_world_model("dreamerv3:ci", obs_shape=(3,), action_dim=1)
    config = TrainingConfig(
        total_steps=1, batch_size=2, sequence_length=8, device="cpu", output_dir=str(tmp_path)
    )
    assert Trainer(model, config).train(short_episodes()).step == 1


def as_dict() -> dict[str, torch.Tensor]:
    batch = short_episodes().sample(4, 5)
    fields = ("obs", "actions", "rewards", "terminations")
    return {name: getattr(batch, name) for name in fields}


class Provider:
    def __init__(self, made: Any) -> None:
        self.made, self.asked = made, []

    def sample(self, batch_size: int, seq_len: int, device: str = "cpu") -> Any:
        self.asked.append((batch_size, seq_len, device))
        return self.made


def test_dicts_and_providers_are_data(tmp_path: Path) -> None:
    config = LineConfig(obs_shape=(3,), action_dim=1)
    assert trainer(tmp_path / "a", config).train([as_dict()]).step == 2
    assert trainer(tmp_path / "b", config).train(as_dict() for _ in range(2)).step == 2
    for made in (as_dict(), short_episodes().sample(4, 5)):
        provider = Provider(made)
        assert trainer(tmp_path / "c", config, 5).train(provider).step == 2
        assert provider.asked == [(4, 5, torch.device("cpu"))] * 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2], "the data gave a int, expected a Batch"),
        (Provider(None), "ran out"),
        (Provider([as_dict()]), "the data gave a list"),
        ([{"obs": torch.zeros(1, 2, 3)}], "a batch needs"),
        ([], "ran out"),
        (as_dict(), "not a dict"),
        (3, "not a int"),
    ],
)
def test_what_is_no_data_is_refused(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        trainer(tmp_path, LineConfig(obs_shape=(3,), action_dim=1)).train(data)


def test_a_random_buffer_is_noise_of_the_shapes_asked_for() -> None:
    buffer = create_random_buffer(1000, (3, 16, 16), 2, num_episodes=5, episode_length=10, seed=1)
    assert (len(buffer), buffer.num_episodes, buffer.capacity) == (55, 5, 1000)
    batch = buffer.sample(4, 8)
    assert (batch.obs.dtype, batch.obs.shape[2:]) == (torch.uint8, (3, 16, 16))
    assert not batch.terminations.any()
    assert len(create_random_buffer(30, (3,), 2, seed=1)) <= 30
