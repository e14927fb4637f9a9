"""`DreamerV3WorldModel`: how the parts of DreamerV3 are put together, learned and acted with.

Legend: B batch, T time, N starts or environments, H horizon, D deter, S groups, C classes,
F features, A action. Source: Hafner et al. 2025 (Nature), in the form of today's official code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import Carry, LearningOverrides, Phase, Scratch
from worldflux.core.observations import steps_as_rows
from worldflux.core.outputs import LossOutput
from worldflux.core.specs import Capability
from worldflux.core.state import State
from worldflux.core.world_model import Observation, WorldModel
from worldflux.errors import CapabilityError
from worldflux.models.dreamer import construction
from worldflux.models.dreamer.behavior import (
    imagination_loss,
    imagine,
    replay_value_loss,
)
from worldflux.models.dreamer.components import (
    ActionSquash,
    HeadsDecoder,
    RSSMDynamics,
    TokenEncoder,
    dreamer_state,
    latent_of,
    observe_by_steps,
    prediction_name,
)
from worldflux.models.dreamer.experience import Experience, experience_of
from worldflux.models.dreamer.learners import Learners, build_optimizer
from worldflux.models.dreamer.losses import kl_losses, prediction_losses, reconstruction_loss
from worldflux.models.dreamer.rssm import Latent, Posterior, from_codes, squashed, to_codes
from worldflux.models.dreamer.spaces import action_parts, observation_keys, rows_of_indices
from worldflux.nn.distributions import bernoulli_loss


class DreamerV3WorldModel(WorldModel):
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

    config: DreamerV3Config

    def __init__(self, config: DreamerV3Config) -> None:
        super().__init__(config)
        self.sampling = True
        self.keys, self.parts = observation_keys(config), action_parts(config)
        self.encoder = construction.build_encoder(config, self.keys)
        self.rssm = construction.build_rssm(config, self.encoder.token_width)
        self.decoder = construction.build_decoder(config, self.keys)
        self.reward = construction.build_reward_head(config)
        self.continuation = construction.build_continue_head(config)
        self.actor = construction.build_actor(config, self.parts)
        self.critic = construction.build_critic(config)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.return_normalizer = construction.build_return_normalizer(config)
        self._fill_slots()

    def _fill_slots(self) -> None:
        self.observation_encoder = TokenEncoder(self.encoder)
        self.action_conditioner = ActionSquash(self.config.action_dim)
        self.dynamics_model = RSSMDynamics(self.rssm)
        self.decoder_module = HeadsDecoder(
            self.keys,
            self.decoder,
            self.reward,
            self.continuation,
            self.critic,
            self.config.use_symlog,
        )
        # The fused paths hold as long as these very parts stand in the slots.
        self._own_dynamics = (self.dynamics_model, self.action_conditioner)
        self._own_decoder = self.decoder_module
        self.composable_support = {
            "observation_encoder",
            "action_conditioner",
            "dynamics_model",
            "decoder_module",
            "rollout_executor",
        }
        self.capabilities = {
            Capability.LATENT_DYNAMICS,
            Capability.OBS_DECODER,
            Capability.REPRESENTATION,
            Capability.REWARD_PRED,
            Capability.CONTINUE_PRED,
        }
        if self.config.actor_critic:
            self.capabilities |= {Capability.POLICY, Capability.VALUE}

    # ------------------------------------------------------------------ protocol

    def encode(self, obs: Observation, deterministic: bool = False) -> State:
        """The posterior state of observations `[B, ...]` seen first in an episode.

        Returns: deter `[B, D]`, stoch `[B, S, C]`, logits `[B, S, C]`. See `WorldModel.encode`.
        """
        seen = super().encode(obs, deterministic)
        if "tokens" not in seen.tensors:
            return seen  # a replaced encoder that knows the whole state
        tokens = seen["tokens"].unsqueeze(1)
        actions = tokens.new_zeros(tokens.shape[0], 0, self.config.action_dim)
        return self._observe_episode(tokens, actions, not deterministic)[0]

    def observe(self, obs: Tensor | dict[str, Tensor], actions: Tensor) -> list[State]:
        """The posterior states along an episode; see `WorldModel.observe`."""
        seen = super().encode(steps_as_rows(obs), deterministic=True)
        if "tokens" not in seen.tensors:
            return super().observe(obs, actions)
        steps = (len(actions) + 1, actions.shape[1])
        tokens = seen["tokens"].unflatten(0, steps).transpose(0, 1)
        return self._observe_episode(tokens, actions.transpose(0, 1), sample=False)

    def _observe_episode(self, tokens: Tensor, actions: Tensor, sample: bool) -> list[State]:
        """T states from tokens `[B, T, E]` and the actions between them `[B, T - 1, A]`."""
        rows, steps = tokens.shape[:2]
        before = torch.cat([actions.new_zeros(rows, 1, actions.shape[-1]), actions], 1)
        first = torch.zeros(rows, steps, dtype=torch.bool, device=tokens.device)
        first[:, 0] = True
        posterior = self._observe(tokens, before, first, self.rssm.initial(rows), sample)
        deter, stoch = posterior.latent.deter, posterior.latent.stoch
        return [
            dreamer_state(Latent(deter[:, t], stoch[:, t]), posterior.logits[:, t])
            for t in range(steps)
        ]

    def action_rows(self, indices: Tensor) -> Tensor:
        """One-hot rows `[..., A]` of indices `[...]`; of several actions at once `[..., parts]`."""
        if len(self.parts) == 1:
            return super().action_rows(indices)
        return rows_of_indices(self.parts, indices)

    # ------------------------------------------------------------------ acting

    def initial_carry(self, num_envs: int) -> Carry:
        """Zeros: deter `[N, D]`, stoch codes `[N, S]` (see `rssm.to_codes`), action `[N, A]`."""
        shapes = {
            "deter": self.config.deter_dim,
            "stoch": self.config.stoch_discrete,
            "action": self.config.action_dim,
        }
        return {k: torch.zeros(num_envs, width, device=self.device) for k, width in shapes.items()}

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
            tokens = self._tokens(self.observations(obs), sample).unsqueeze(1)
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
        return [Phase("model", optimizer, learners.parameters, grad_clip, self._learn)]

    def loss(self, batch: Batch) -> LossOutput:
        """Sum of the scaled losses of a batch `[B, T, ...]`; components are unscaled means."""
        return self._learn(batch, {})

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
        return {name: scratch[name] for name in self.replay_columns()}

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

    # ------------------------------------------------------------------ through the slots

    def _tokens(self, observations: dict[str, Tensor], sample: bool) -> Tensor:
        """Tokens `[..., E]` of named observations `[..., *shape]` from the encoder slot."""
        if self.observation_encoder is None:
            raise NotImplementedError("no component is attached in slot 'observation_encoder'")
        key = self.keys[0]
        leading = observations[key.name].shape[: -len(key.shape)]
        flat = {k.name: observations[k.name].flatten(0, len(leading) - 1) for k in self.keys}
        seen = self.observation_encoder.encode(flat, not sample)
        return seen["tokens"].unflatten(0, leading)

    def _uses_own_dynamics(self) -> bool:
        """Whether the fused recurrence says the same as the slots would."""
        dynamics, conditioner = self._own_dynamics
        return self.dynamics_model is dynamics and self.action_conditioner is conditioner

    def _observe(
        self, tokens: Tensor, actions: Tensor, is_first: Tensor, initial: Latent, sample: bool
    ) -> Posterior:
        """The posterior along `[B, T]`; actions are the ones before each step."""
        noise = self.rssm.noise(*tokens.shape[:2]) if sample else None
        if self._uses_own_dynamics():
            return self.rssm.observe(tokens, squashed(actions), is_first, initial, noise)
        return observe_by_steps(
            self.transition, self.rssm, tokens, actions, is_first, initial, noise
        )

    def _imagination_step(self, start: Latent) -> Callable[[Latent, Tensor, int], Latent]:
        if not self._uses_own_dynamics():
            deterministic = not self.sampling

            def step(latent: Latent, action: Tensor, index: int) -> Latent:
                state = State({"deter": latent.deter, "stoch": latent.stoch})
                return latent_of(self.transition(state, action, deterministic=deterministic))

            return step
        rssm, weights = self.rssm, self.rssm.core_weights()

        def fused_step(latent: Latent, action: Tensor, index: int) -> Latent:
            drive = rssm.action_drive(squashed(action), weights)
            deter = rssm.core(latent, drive, weights)
            noise = rssm.noise(deter.shape[0]) if self.sampling else None
            return Latent(deter, rssm.draw(rssm.prior_logits(deter), noise))

        return fused_step

    def _imagination_action(self, features: Tensor) -> Tensor:
        distribution = self.actor(features)
        return distribution.sample() if self.sampling else distribution.mode()

    @torch.no_grad()
    def _imagined_outcomes(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Reward and continue probability `[N, H + 1]` of features `[N, H + 1, F]`."""
        if self.decoder_module is self._own_decoder:
            return self.reward(features).pred(), torch.sigmoid(self.continuation(features).float())
        config, leading = self.config, features.shape[:2]
        latent = Latent.of_features(features.flatten(0, 1), config.deter_dim, config.stoch_classes)
        predictions = self.decode(State({"deter": latent.deter, "stoch": latent.stoch})).predictions
        for name in ("reward", "continue"):
            if name not in predictions:
                raise CapabilityError(f"the decoder component predicts no {name!r} to act on")
        return predictions["reward"].view(leading), predictions["continue"].view(leading)

    def _replaced_decoder_losses(
        self, latent: Latent, experience: Experience, goes_on: Tensor
    ) -> dict[str, Tensor]:
        flat = State({"deter": latent.deter.flatten(0, 1), "stoch": latent.stoch.flatten(0, 1)})
        predictions = self.decode(flat).predictions
        leading = latent.deter.shape[:2]
        return prediction_losses(
            {name: value.unflatten(0, leading) for name, value in predictions.items()},
            {prediction_name(key, self.keys): key for key in self.keys},
            experience.observations,
            experience.rewards,
            goes_on,
            self.config.use_symlog,
        )

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
