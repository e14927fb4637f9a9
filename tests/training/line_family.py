"""The smallest real family: predicts the next observation and reward linearly, acts at random.

It exists to test the Trainer without the weight of a published algorithm.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worldflux.core.batch import Batch
from worldflux.core.config import TrainingRecipe, WorldModelConfig
from worldflux.core.learning import Carry, LearningOverrides, Phase, Scratch
from worldflux.core.outputs import LossOutput
from worldflux.core.world_model import WorldModel


class LineConfig(WorldModelConfig):
    """A vector configuration of the line family."""

    def training_recipe(self) -> TrainingRecipe:
        return TrainingRecipe(8, 3, 1e-2, 10.0, 20, False, 1.0)


class LineModel(WorldModel):
    """o', r = W [o, a] + b; one phase, plain SGD with momentum (so that optimisers have state)."""

    def __init__(self, config: WorldModelConfig) -> None:
        super().__init__(config)
        size = config.obs_shape[0]
        self.line = nn.Linear(size + config.action_dim, size + 1)

    def loss(self, batch: Batch) -> LossOutput:
        assert isinstance(batch.obs, Tensor)
        inputs = torch.cat([batch.obs[:, :-1], batch.actions[:, :-1]], -1)
        wanted = torch.cat([batch.obs[:, 1:], batch.rewards[:, 1:, None]], -1)
        error = (self.line(inputs) - wanted).square().mean()
        return LossOutput(error, {"prediction": error.detach()})

    def phases(self, overrides: LearningOverrides) -> list[Phase]:
        rate = overrides.learning_rate or self.config.training_recipe().learning_rate
        clip = overrides.grad_clip or self.config.training_recipe().grad_clip
        parameters = list(self.parameters())
        optimizer = torch.optim.SGD(parameters, rate, momentum=0.9)
        return [Phase("line", optimizer, parameters, clip, lambda batch, _: self.loss(batch))]

    def after_update(self, scratch: Scratch) -> dict[str, Tensor]:
        return {}

    def initial_carry(self, num_envs: int) -> Carry:
        return {"steps": torch.zeros(num_envs, 1)}

    def policy(
        self, obs: Tensor | dict[str, Tensor], carry: Carry, is_first: Tensor, *, explore: bool
    ) -> tuple[Tensor, Carry]:
        assert isinstance(obs, Tensor)
        actions = torch.rand(obs.shape[0], self.config.action_dim) * 2 - 1
        return actions, {"steps": carry["steps"] * ~is_first[:, None] + 1}


def line_model(obs_size: int = 3, action_dim: int = 1) -> LineModel:
    """A fresh line model."""
    return LineModel(LineConfig(obs_shape=(obs_size,), action_dim=action_dim, learning_rate=1e-2))
