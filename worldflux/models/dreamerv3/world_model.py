"""`DreamerV3WorldModel`: how DreamerV3 acts, and how it learns model and behaviour at once.

Legend: B batch, T time, N starts or environments, H horizon, D deter, S groups, C classes,
F features, A action. Source: Hafner et al. 2025 (Nature), in the form of today's official code.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.learning import Carry, LearningOverrides, Phase, Scratch
from worldflux.core.outputs import LossOutput
from worldflux.core.specs import ExperienceLimits, symexp_number
from worldflux.models.dreamerv3.losses import (
    Experience,
    experience_of,
    imagination_loss,
    imagine,
    kl_losses,
    reconstruction_loss,
    replay_value_loss,
)
from worldflux.models.dreamerv3.maths import bernoulli_loss
from worldflux.models.dreamerv3.optim import Learners, build_optimizer
from worldflux.models.dreamerv3.rssm import Latent, Posterior, from_codes, to_codes
from worldflux.models.dreamerv3.rssm_model import RSSMWorldModel


class DreamerV3WorldModel(RSSMWorldModel):
    """An RSSM world model with an actor-critic that learns in imagination.

    `config.actor_critic` gates behaviour learning: without it `loss` trains the world model only,
    and actor and critic stay as initialised. Discrete actions may be given as whole numbers or
    one-hot; the policy returns one-hot rows `[N, A]`.

    Attributes:
        sampling: False replaces every draw by the mode, in learning and acting; for comparing
            with recorded numbers.

    Raises:
        ConfigurationError: when the configuration asks for what this family cannot do.
    """

    # ------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        """Zeros: deter `[N, D]`, stoch codes `[N, S]` (see `rssm.to_codes`), action `[N, A]`."""
        shapes = {
            "deter": self.config.deter_dim,
            "stoch": self.config.stoch_discrete,
            "action": self.config.action_dim,
        }
        return {k: torch.zeros(num_envs, width, device=self.device) for k, width in shapes.items()}

    def experience_limits(self) -> ExperienceLimits | None:
        """Rewards, and returns where a critic learns, between the bins; none without two-hot."""
        config = self.config
        if not config.use_twohot:
            return None
        low, high = config.reward_bin_min, config.reward_bin_max
        return ExperienceLimits(
            low=symexp_number(low) if config.use_symlog else low,
            high=symexp_number(high) if config.use_symlog else high,
            discount=config.discount if config.actor_critic else 0.0,
            low_key="reward_bin_min",
            high_key="reward_bin_max",
            in_symlog=config.use_symlog,
        )

    @torch.no_grad()
    def policy(
        self,
        obs: Tensor | dict[str, Tensor],
        carry: Carry,
        is_first: Tensor,
        *,
        explore: bool,
    ) -> tuple[Tensor, Carry]:
        """Actions `[N, A]` and the memory for the next step; discrete actions are one-hot rows.

        With `explore` latents and actions are sampled, as the official agent always does;
        without it both are modes, so that an evaluation gives the same result twice. Continuous
        samples may leave [-1, 1]: the environment clips them.
        """
        sample = explore and self.sampling
        with self._precision():
            named = self.acting_observations(obs, carry, is_first)
            tokens = self._tokens(named, sample).unsqueeze(1)
            initial = Latent(carry["deter"], from_codes(carry["stoch"], self.config.stoch_classes))
            posterior = self._observe(
                tokens, carry["action"].unsqueeze(1), is_first.unsqueeze(1), initial, sample
            )
            latent = Latent(posterior.latent.deter[:, 0], posterior.latent.stoch[:, 0])
            distribution = self.actor(latent.features())
            action = distribution.sample() if sample else distribution.mode()
        return action, {"deter": latent.deter, "stoch": to_codes(latent.stoch), "action": action}

    def replay_columns(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Latents of the acting policy, where the recipe replays with a context."""
        if not self.config.replay_context:
            return {}
        return {
            "deter": ((self.config.deter_dim,), torch.float32),
            "stoch": ((self.config.stoch_discrete,), torch.float32),
        }

    # ------------------------------------------------------------------ learning

    def phases(self, overrides: LearningOverrides) -> list[Phase]:
        """One phase: the replay value loss reaches the RSSM, so all losses share a backward."""
        actor, critic = list(self.actor.parameters()), list(self.critic.parameters())
        behavior = {id(parameter) for parameter in (*actor, *critic)}
        learned = [p for p in self.parameters() if p.requires_grad and id(p) not in behavior]
        trains_behavior = self.config.actor_critic
        learners = Learners(
            learned, actor if trains_behavior else [], critic if trains_behavior else []
        )
        optimizer, grad_clip = build_optimizer(self.config, learners, overrides)
        return [Phase("model", optimizer, learners.parameters, grad_clip, self.first_loss)]

    def loss(self, batch: Batch) -> LossOutput:
        """Sum of the scaled losses of a batch `[B, T, ...]`; components are unscaled means."""
        return self._learn(batch, self.update_scratch)

    @torch.no_grad()
    def after_update(self, scratch: Scratch) -> dict[str, Tensor]:
        """Store the return percentiles, move the slow critic, hand the fresh latents back.

        Returns: the `replay_columns` of the steps that were learned from (all but the context).
        """
        if "return_low" in scratch:
            percentiles = torch.stack([scratch["return_low"], scratch["return_high"]])
            self.return_normalizer.commit(percentiles)
            slow: list[Tensor] = list(self.slow_critic.parameters())
            fast: list[Tensor] = list(self.critic.parameters())
            torch._foreach_lerp_(slow, fast, self.config.slow_critic_fraction)
        return {name: scratch[name] for name in self.replay_columns() if name in scratch}

    def _learn(self, batch: Batch, scratch: Scratch) -> LossOutput:
        with self._precision():
            experience = experience_of(
                batch,
                self.observations(batch.obs),
                self._action_vectors(batch.actions),
                self.config.replay_context,
                self.rssm.initial(batch.batch_size),
            )
            tokens = self._tokens(experience.observations, self.sampling)
            posterior = self._observe(
                tokens,
                experience.previous_actions,
                experience.first,
                experience.initial,
                self.sampling,
            )
            losses = self._model_losses(posterior, experience)
            watched: dict[str, Tensor] = {}
            if self.config.actor_critic:
                behavior, watched = self._behavior_losses(posterior.latent, experience, scratch)
                losses.update(behavior)
        scratch["deter"] = posterior.latent.deter.detach().float()
        scratch["stoch"] = to_codes(posterior.latent.stoch.detach())
        components = {name: loss.mean() for name, loss in losses.items()}
        scales = self.config.resolved_loss_scales
        total = torch.stack([scales[name] * value for name, value in components.items()]).sum()
        return LossOutput(total, components, _as_numbers(watched))

    def _model_losses(self, posterior: Posterior, experience: Experience) -> dict[str, Tensor]:
        """World-model losses `[B, T]` by the names of their scales."""
        config, latent = self.config, posterior.latent
        prior_logits = posterior.prior_logits
        if prior_logits is None:
            prior_logits = self.rssm.prior_logits(latent.deter)
        dynamics, representation = kl_losses(
            self.rssm.log_probs(posterior.logits), self.rssm.log_probs(prior_logits), config.kl_free
        )
        losses = {"kl_dynamics": dynamics, "kl_representation": representation}
        goes_on = 1 - experience.terminal
        if config.continue_horizon is not None:
            goes_on = goes_on * config.discount
        if self.decoder_module is not self._own_decoder:
            return {**losses, **self._replaced_decoder_losses(latent, experience, goes_on)}
        features = latent.features()
        raw = self.decoder(latent.deter, latent.stoch.flatten(-2))
        parts = reconstruction_loss(raw, experience.observations, self.keys, config.use_symlog)
        losses["reconstruction"] = torch.stack(list(parts.values())).sum(0)
        (losses["reward"],) = self.reward(features).loss(experience.rewards)
        losses["continue"] = bernoulli_loss(self.continuation(features), goes_on)
        return losses

    def _behavior_losses(
        self, latent: Latent, experience: Experience, scratch: Scratch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Actor, critic and replay-critic losses, and scalars to watch.

        The first two losses never reach the world model.
        """
        config = self.config
        start = Latent(latent.deter.detach().flatten(0, 1), latent.stoch.detach().flatten(0, 1))
        imagined = imagine(
            self._imagination_step(start),
            self._imagination_action,
            start,
            config.imagination_horizon,
        )
        reward, continues = self._imagined_outcomes(imagined.features)
        normalizer = self.return_normalizer if config.return_normalization else None
        behavior = imagination_loss(
            actions=imagined.actions,
            reward=reward,
            continues=continues,
            policy=self.actor(imagined.features[:, :-1]),
            value=self.critic(imagined.features),
            slow_value=self._slow_value(imagined.features),
            normalizer=normalizer,
            discount=1.0 if config.continue_horizon is not None else config.discount,
            lambda_=config.lambda_,
            entropy_coef=config.actor_entropy_coef,
            slow_scale=config.slow_critic_scale,
        )
        scratch["return_low"], scratch["return_high"] = behavior.percentiles.unbind()
        losses = {"actor": behavior.actor, "critic": behavior.critic}
        if config.resolved_loss_scales["replay_critic"] and experience.rewards.shape[1] > 1:
            features = latent.features()
            losses["replay_critic"], _ = replay_value_loss(
                last=experience.last,
                terminal=experience.terminal,
                reward=experience.rewards,
                bootstrap=behavior.returns[:, 0].view_as(experience.rewards),
                value=self.critic(features),
                slow_value=self._slow_value(features),
                discount=config.discount,
                lambda_=config.lambda_,
                slow_scale=config.slow_critic_scale,
            )
        watched = {
            "imagined_return": behavior.returns.mean(),
            "imagined_reward": reward.mean(),
            "advantage_size": behavior.advantages.abs().mean(),
            "policy_entropy": behavior.entropy.mean(),
        }
        return losses, watched

    # ------------------------------------------------------------------ small parts

    @torch.no_grad()
    def _slow_value(self, features: Tensor) -> Tensor:
        return self.slow_critic(features).pred()

    def _action_vectors(self, actions: Tensor) -> Tensor:
        vectors = self.action_tensor(actions)
        assert vectors is not None
        return vectors.float()

    def _precision(self) -> AbstractContextManager[None]:
        """Networks in `config.dtype`, or in the type that the Trainer chose for mixed precision.

        Distributions, norms and losses stay in float32. float16 needs the Trainer's loss scaling.
        """
        kind = self.device.type
        if torch.is_autocast_enabled(kind):
            return nullcontext()
        dtype = torch.float16 if self.config.dtype == "float16" else torch.bfloat16
        return torch.autocast(kind, dtype, enabled=self.config.dtype != "float32")


def _as_numbers(scalars: dict[str, Tensor]) -> dict[str, float]:
    """Plain numbers of scalar tensors, fetched from the device at once."""
    if not scalars:
        return {}
    values = torch.stack([value.float() for value in scalars.values()]).tolist()
    return dict(zip(scalars, values, strict=True))
