"""A world-model family from outside worldflux: a deterministic latent MLP that plans by shooting.

    pip install worldflux-latent-mlp
    create_world_model("latent-mlp", obs_shape=(3,), action_dim=1)

Legend: B batch, T time, L latent, A action, N environments. Nothing here is registered by hand:
pyproject.toml names the entry points.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from worldflux import (
    Batch,
    Capability,
    ConditionPayload,
    LossOutput,
    ModelOutput,
    State,
    Trajectory,
    WorldModel,
)
from worldflux.core.config import TrainingRecipe, WorldModelConfig, strict_dataclass
from worldflux.core.learning import Carry, LearningOverrides, Phase, Scratch
from worldflux.core.rollout import AutoregressiveRollout


@strict_dataclass
class LatentMLPConfig(WorldModelConfig):
    """Sizes and numbers of the family; vectors (D,) and continuous actions only."""

    model_type: str = "latent-mlp"
    obs_shape: tuple[int, ...] = (3,)
    action_dim: int = 1
    latent_dim: int = 32
    hidden_dim: int = 64
    learning_rate: float = 1e-3
    candidates: int = 64
    plan_horizon: int = 6

    MODEL_TYPES: ClassVar[tuple[str, ...]] = ("latent-mlp",)
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {"small": {}, "wide": {"hidden_dim": 256}}

    def training_recipe(self) -> TrainingRecipe:
        """What holds where the user sets nothing."""
        return TrainingRecipe(
            batch_size=32,
            sequence_length=8,
            learning_rate=self.learning_rate,
            grad_clip=self.grad_clip,
            warmup_transitions=500,
            pretrain=False,
            updates_per_step=0.5,
        )


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(),
        nn.Linear(hidden, outputs),
    )  # fmt: skip


class VectorEncoder(nn.Module):
    """Slot `observation_encoder`: obs `[B, D]` -> latent `[B, L]`."""

    def __init__(self, config: LatentMLPConfig) -> None:
        super().__init__()
        self.name = next(iter(config.observation_modalities))
        self.net = _mlp(config.obs_shape[0], config.hidden_dim, config.latent_dim)

    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        return State({"latent": self.net(observations[self.name].float())})


class JoinAction:
    """Slot `action_conditioner`: latent and action side by side `[B, L + A]`."""

    def condition(
        self, state: State, action: Tensor | None, conditions: ConditionPayload
    ) -> Tensor:
        assert action is not None, "this family has no step without an action"
        return torch.cat([state["latent"], action], -1)


class ResidualDynamics(nn.Module):
    """Slot `dynamics_model`: z' = z + f(z, a)."""

    def __init__(self, config: LatentMLPConfig) -> None:
        super().__init__()
        self.net = _mlp(config.latent_dim + config.action_dim, config.hidden_dim, config.latent_dim)

    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        assert conditioned is not None
        return State({"latent": state["latent"] + self.net(conditioned)})


class VectorDecoder(nn.Module):
    """Slot `decoder_module`: "obs" `[B, D]` and "reward" `[B]` of a latent."""

    def __init__(self, config: LatentMLPConfig) -> None:
        super().__init__()
        self.net = _mlp(config.latent_dim, config.hidden_dim, config.obs_shape[0] + 1)

    def decode(self, state: State, conditions: ConditionPayload) -> ModelOutput:
        values = self.net(state["latent"])
        return ModelOutput({"obs": values[:, :-1], "reward": values[:, -1]}, state)


class LatentMLP(WorldModel):
    """Learns to predict observations and rewards along a sequence; acts by random shooting."""

    config_class = LatentMLPConfig
    config: LatentMLPConfig

    def __init__(self, config: LatentMLPConfig) -> None:
        super().__init__(config)
        self.observation_encoder = VectorEncoder(config)
        self.action_conditioner = JoinAction()
        self.dynamics_model = ResidualDynamics(config)
        self.decoder_module = VectorDecoder(config)
        # loss, rollout and acting go through the slots, so that every one may be replaced.
        self.composable_support = {
            "observation_encoder",
            "action_conditioner",
            "dynamics_model",
            "decoder_module",
            "rollout_executor",
        }
        self.capabilities = {
            Capability.REPRESENTATION,
            Capability.LATENT_DYNAMICS,
            Capability.OBS_DECODER,
            Capability.REWARD_PRED,
            Capability.PLANNING,
        }

    def loss(self, batch: Batch) -> LossOutput:
        """Squared errors of a rollout from the first observation of `[B, T, ...]`."""
        obs = next(iter(self.observations(batch.obs).values())).float()
        imagined = self.rollout(self.encode(obs[:, 0]), batch.actions[:, :-1].transpose(0, 1))
        decoded = [self.decode(state).predictions for state in imagined.states]
        seen = torch.stack([predictions["obs"] for predictions in decoded], 1)
        assert imagined.rewards is not None
        parts = {
            "reconstruction": (seen - obs).square().mean(),
            "reward": (imagined.rewards.transpose(0, 1) - batch.rewards[:, 1:]).square().mean(),
        }
        total = torch.stack(list(parts.values())).sum()
        return LossOutput(total, {name: part.detach() for name, part in parts.items()})

    def phases(self, overrides: LearningOverrides) -> list[Phase]:
        """One phase: Adam on everything."""
        parameters = list(self.parameters())
        optimizer = torch.optim.Adam(
            parameters, overrides.learning_rate or self.config.learning_rate
        )
        clip = overrides.grad_clip or self.config.grad_clip
        return [Phase("model", optimizer, parameters, clip, lambda batch, _: self.loss(batch))]

    def after_update(self, scratch: Scratch) -> dict[str, Tensor]:
        """No targets to move, nothing for the replay."""
        return {}

    def initial_carry(self, num_envs: int) -> Carry:
        """No memory between steps."""
        return {}

    @torch.no_grad()
    def policy(
        self, obs: Tensor | dict[str, Tensor], carry: Carry, is_first: Tensor, *, explore: bool
    ) -> tuple[Tensor, Carry]:
        """The first action `[N, A]` of the best of `candidates` random plans, for each of N."""
        config, root = self.config, self.encode(obs)
        size, count = root.batch_size, config.candidates
        shape = (config.plan_horizon, count * size, config.action_dim)
        plans = torch.rand(shape, device=self.device) * 2 - 1
        start = State({name: tensor.repeat(count, 1) for name, tensor in root.tensors.items()})
        rewards = self.rollout(start, plans).rewards
        assert rewards is not None
        best = rewards.sum(0).view(count, size).argmax(0)
        return plans[0].view(count, size, -1)[best, torch.arange(size)], carry


class RepeatFirstAction(AutoregressiveRollout):
    """Component for the slot `rollout_executor`: the first action of a plan, again and again."""

    def rollout(
        self,
        model: WorldModel,
        initial_state: State,
        actions: Tensor,
        conditions: ConditionPayload,
        deterministic: bool = False,
    ) -> Trajectory:
        repeated = actions[:1].expand_as(actions)
        return super().rollout(model, initial_state, repeated, conditions, deterministic)
