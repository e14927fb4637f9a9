"""Objects that are no tensors or losses are told by name, not by what Python misses on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from worldflux import TDMPC2Config, create_world_model
from worldflux.core.batch import Batch
from worldflux.errors import ShapeMismatchError, TrainingError
from worldflux.models.tdmpc2.world_model import TDMPC2WorldModel
from worldflux.training import ReplayBuffer, Trainer, TrainingConfig


@pytest.mark.parametrize("family", ["tdmpc2:ci", "dreamer:ci"])
def test_what_is_no_tensor_is_told(family: str) -> None:
    model = create_world_model(family, obs_shape=(3,), action_dim=2)
    for given in (np.zeros((1, 3)), [[0.0, 0.0, 0.0]], None):
        with pytest.raises(ShapeMismatchError, match=rf"is a {type(given).__name__}, expected"):
            model.encode(given)
    with pytest.raises(ShapeMismatchError, match="the action is a ndarray"):
        model.transition(model.encode(torch.zeros(1, 3)), np.zeros((1, 2)))


class OwnLoss(TDMPC2WorldModel):
    def loss(self, batch: Batch) -> Any:
        return batch.rewards.mean()


def trained(model: TDMPC2WorldModel, width: int, folder: Any) -> None:
    buffer = ReplayBuffer(100, (width,), 2)
    buffer.add_episode(np.zeros((21, width)), np.zeros((20, 2)), np.zeros(20))
    config = TrainingConfig(total_steps=1, batch_size=2, device="cpu", output_dir=str(folder))
    Trainer(model, config).train(buffer)


def test_a_loss_of_another_kind_and_a_replay_of_another_width_are_told(tmp_path: Any) -> None:
    config = TDMPC2Config.from_size("ci", obs_shape=(3,), action_dim=2)
    with pytest.raises(TrainingError, match="returned a Tensor, expected a LossOutput"):
        trained(OwnLoss(config), 3, tmp_path / "loss")
    with pytest.raises(ShapeMismatchError, match="expected \\[B, 3\\]"):
        trained(TDMPC2WorldModel(config), 4, tmp_path / "width")
