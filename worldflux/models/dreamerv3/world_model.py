"""How DreamerV3 (Hafner et al. 2025, Nature) sees, imagines, acts and learns.

Legend: B batch, T time, N starts or environments, H horizon, D deter, S groups, C classes,
E tokens, F features, A action. Equation by equation: docs/dreamerv3.md.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.batch import Batch, require_batch
from worldflux.core.compilation import Fallback
from worldflux.core.components import COMPONENT_SLOTS
from worldflux.core.config import ACTION_MASK
from worldflux.core.inputs import steps_as_rows
from worldflux.core.learning import (
    Carry,
    LearningOverrides,
    Phase,
    Scratch,
)
from worldflux.core.outputs import LossOutput, metrics_of
from worldflux.core.precision import COMPUTE_TYPES, computing_in
from worldflux.core.specs import ExperienceLimits
from worldflux.core.state import State
from worldflux.core.world_model import Observation, WorldModel
from worldflux.errors import ConfigurationError, ShapeMismatchError

from .barlow import projector
from .compiled import compiled
from .config import DreamerV3Config, action_parts, observation_keys
from .family import capabilities_of, limits_of
from .imagination import imagined_step
from .losses import behavior_losses, behavior_terms, decoder_loss, experience_of, model_losses
from .maths import ReturnNormalizer
from .networks import ContinueHead, Decoder, Encoder, HeadsDecoder, Policy, ScalarHead, TokenEncoder
from .phases import phases_of
from .rssm import (
    RSSM,
    ActionSquash,
    CoreWeights,
    Latent,
    Posterior,
    RSSMDynamics,
    from_codes,
    squashed,
    to_codes,
)


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

    imitates = True
    config: DreamerV3Config

    def __init__(self, config: DreamerV3Config) -> None:
        super().__init__(config)
        self.sampling = True
        self.keys, self.parts = observation_keys(config), action_parts(config)
        self.encoder = Encoder(config, self.keys)
        self.rssm = RSSM(config, self.encoder.token_width)
        self.decoder: Decoder | None = None
        self.projector: nn.Linear | None = None
        if config.representation == "barlow":
            self.projector = projector(config.feature_dim, self.encoder.token_width)
        else:
            self.decoder = Decoder(config, self.keys)
        self.reward = ScalarHead(config, config.num_reward_layers, config.reward_outscale)
        self.continuation = ContinueHead(config)
        self.actor = Policy(config, self.parts)
        self.critic = ScalarHead(config, config.num_mlp_layers, config.critic_outscale)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.return_normalizer = ReturnNormalizer(
            rate=1 - config.return_decay,
            low=config.return_percentile_low,
            high=config.return_percentile_high,
            limit=config.return_limit,
        )
        if config.probe_decoder:
            with torch.random.fork_rng(devices=[]):  # the agent draws as it does without
                self.decoder = Decoder(config, self.keys)
        self.observation_encoder = TokenEncoder(self.encoder)
        self.action_conditioner = ActionSquash(config.action_dim)
        self.dynamics_model = RSSMDynamics(self.rssm)
        self.decoder_module = HeadsDecoder(
            self.keys, self.decoder, self.reward, self.continuation, self.critic
        )
        untrained = {"decoder_module"} if self.projector is not None else set()
        self.composable_support = set(COMPONENT_SLOTS) - untrained
        self._own_parts = {slot: getattr(self, slot) for slot in COMPONENT_SLOTS}
        # What acting and learning spend their time in.
        self.functions: dict[str, Callable[..., Any]] = {
            "act": DreamerV3WorldModel._act,
            "observed": RSSM.observed_steps,
            "imagined": imagined_step,
            "model": model_losses,
            "behavior": behavior_terms,
        }
        self.capabilities = capabilities_of(config)

    def uses_own(self, *slots: str) -> bool:
        """Whether these slots hold the family's own parts: a fused path then says the same."""
        return all(getattr(self, slot) is self._own_parts[slot] for slot in slots)

    # ------------------------------------------------------------------ seeing

    def encode(self, obs: Observation, deterministic: bool = False) -> State:
        """The posterior state of observations `[B, ...]` seen first in an episode.

        Returns: deter `[B, D]`, stoch and logits `[B, S, C]`. See `WorldModel.encode`.
        """
        seen = super().encode(obs, deterministic)
        if "tokens" not in seen.tensors:
            return seen  # a replaced encoder that knows the whole state
        tokens = seen["tokens"].unsqueeze(1)
        actions = tokens.new_zeros(tokens.shape[0], 0, self.config.action_dim)
        return self._observe_episode(tokens, actions, not deterministic)[0]

    def observe(self, obs: Tensor | dict[str, Tensor], actions: Tensor) -> list[State]:
        """T posterior states of observations `[T, B, ...]`; see `WorldModel.observe`."""
        seen = super().encode(steps_as_rows(obs), deterministic=True)
        if "tokens" not in seen.tensors:
            return super().observe(obs, actions)
        steps = (len(actions) + 1, actions.shape[1])
        tokens = seen["tokens"].unflatten(0, steps).transpose(0, 1)
        return self._observe_episode(tokens, actions.transpose(0, 1), sample=False)

    def _observe_episode(self, tokens: Tensor, actions: Tensor, sample: bool) -> list[State]:
        """T states from tokens `[B, T, E]` and the actions between them `[B, T - 1, A]`."""
        rows, steps = tokens.shape[:2]
        before = F.pad(actions, (0, 0, 1, 0))
        first = torch.arange(steps, device=tokens.device).expand(rows, steps) == 0
        (deter, stoch), logits, _ = self._observe(
            tokens, before, first, self.rssm.initial(rows), sample
        )
        return [Latent(deter[:, t], stoch[:, t]).state(logits=logits[:, t]) for t in range(steps)]

    def action_rows(self, indices: Tensor) -> Tensor:
        """One-hot rows `[..., A]` of indices `[...]`; of several actions at once `[..., parts]`.

        Raises:
            ShapeMismatchError: when a part is continuous, or an index is none of its part's.
        """
        if len(self.parts) == 1:
            return super().action_rows(indices)
        if any(p.kind != "discrete" for p in self.parts) or indices.shape[-1] != len(self.parts):
            raise ShapeMismatchError(
                f"indices of shape {tuple(indices.shape)} do not name one choice for each of the "
                f"{len(self.parts)} actions {[part.name for part in self.parts]}"
            )
        columns = []
        for part, index in zip(self.parts, indices.unbind(-1), strict=True):
            if index.numel() and (int(index.min()) < 0 or int(index.max()) >= part.width):
                raise ShapeMismatchError(f"action {part.name!r} is an index below {part.width}")
            columns.append(F.one_hot(index.long(), part.width))
        return torch.cat(columns, -1).to(torch.float32)

    def _tokens(self, observations: dict[str, Tensor], sample: bool) -> Tensor:
        """Tokens `[..., E]` of named observations `[..., *shape]` from the encoder slot."""
        key = self.keys[0]
        leading = observations[key.name].shape[: -len(key.shape)]
        flat = {k.name: observations[k.name].flatten(0, len(leading) - 1) for k in self.keys}
        seen = self.encode_named(flat, not sample)
        return seen["tokens"].unflatten(0, leading)

    def _observe(
        self, tokens: Tensor, actions: Tensor, is_first: Tensor, initial: Latent, sample: bool
    ) -> Posterior:
        """The posterior along `[B, T]`; actions are the ones before each step."""
        noise = self.rssm.noise(*tokens.shape[:2]) if sample else None
        own = self.uses_own("dynamics_model", "action_conditioner")
        transition = None if own else self.transition
        recurrence = self.functions["observed"]
        return self.rssm.observe(tokens, actions, is_first, initial, noise, transition, recurrence)

    # ------------------------------------------------------------------ acting

    def allowed_actions(self, observations: dict[str, Tensor]) -> Tensor | None:
        """The mask `[..., A]` among named observations, if discrete actions have one."""
        mask = observations.get(ACTION_MASK)
        fits = mask is not None and mask.shape[-1:] == (self.config.action_dim,)
        return mask if fits and self.config.action_type == "discrete" else None

    def initial_carry(self, num_envs: int) -> Carry:
        """Zeros: deter `[N, D]`, stoch codes `[N, S]` (see `rssm.to_codes`), action `[N, A]`."""
        config = self.config
        widths = config.deter_dim, config.stoch_discrete, config.action_dim
        zeros = (torch.zeros(num_envs, width, device=self.device) for width in widths)
        return dict(zip(("deter", "stoch", "action"), zeros, strict=True))

    @torch.inference_mode()
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
        with computing_in(self.acting_dtype, self.device):
            named = self.acting_observations(obs, carry, is_first)
            return self.functions["act"](self, named, carry, is_first, explore and self.sampling)

    def _act(
        self, named: dict[str, Tensor], carry: Carry, is_first: Tensor, sample: bool
    ) -> tuple[Tensor, Carry]:
        """`policy` of named observations `[N, ...]`, with draws or modes."""
        tokens = self._tokens(named, sample)
        kept = (~is_first).to(tokens.dtype).unsqueeze(-1)
        codes = from_codes(carry["stoch"] * kept, self.config.stoch_classes)
        before, action = Latent(carry["deter"] * kept, codes), carry["action"] * kept
        latent, codes = self._observed(tokens, action, before, sample)
        distribution = self.actor(latent.features(), self.allowed_actions(named))
        action = distribution.sample() if sample else distribution.mode()
        return action, {"deter": latent.deter, "stoch": codes, "action": action}

    def carry_after(self, carry: Carry, actions: Tensor) -> Carry:
        """The memory with the action that was taken."""
        return {**carry, "action": actions}

    def _observed(
        self, tokens: Tensor, action: Tensor, before: Latent, sample: bool
    ) -> tuple[Latent, Tensor]:
        """The posterior after one more observation, `[N, ...]`, and its `to_codes`."""
        if self.uses_own("dynamics_model", "action_conditioner"):
            noise = self.rssm.noise(len(tokens)) if sample else None
            return self.rssm.observed(tokens, action, before, noise)
        later = torch.zeros(len(tokens), 1, dtype=torch.bool, device=tokens.device)
        steps = tokens.unsqueeze(1), action.unsqueeze(1), later
        (deter, stoch), _, _ = self._observe(*steps, before, sample)
        return Latent(deter[:, 0], stoch[:, 0]), to_codes(stoch[:, 0])

    def acting_state(self, obs: Tensor | dict[str, Tensor], carry: Carry) -> State:
        """The posterior state that acting left in its memory."""
        stoch = from_codes(carry["stoch"], self.config.stoch_classes)
        return Latent(carry["deter"], stoch).state()

    def imagined_action(self, state: State) -> Tensor:
        """The mode of the actor `[B, A]`."""
        return self.actor(Latent.of(state).features()).mode()

    def replay_columns(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Latents of the acting policy, where the recipe replays with a context."""
        if not self.config.replay_context:
            return {}
        return {
            "deter": ((self.config.deter_dim,), torch.float32),
            "stoch": ((self.config.stoch_discrete,), torch.float32),
        }

    def experience_limits(self) -> ExperienceLimits | None:
        """Rewards, and returns where a critic learns, between the bins; none without two-hot."""
        return limits_of(self.config)

    # ------------------------------------------------------------------ learning

    def phases(self, overrides: LearningOverrides) -> list[Phase]:
        """One phase: the replay value loss reaches the RSSM, so all losses share a backward.
        A probe decoder has a second one.

        "laprop": one learning rate for all parameters, clipped tensor by tensor; a `grad_clip`
        that the user set is a global norm before that. "adam" (or "adamw", the same with the decay
        that the user set): the documented rates and thresholds of world model, actor and critic.

        Raises:
            ConfigurationError: for another optimiser.
        """
        return phases_of(self, overrides)

    def loss(self, batch: Batch) -> LossOutput:
        """Sum of the scaled losses of a batch `[B, T, ...]`; components are unscaled means."""
        require_batch(batch)
        scratch = self.update_scratch
        with self._precision():
            actions = self.action_tensor(batch.actions)
            assert actions is not None
            observations, zero = self.observations(batch.obs), self.rssm.initial(batch.batch_size)
            context = self.config.replay_context
            data = experience_of(batch, observations, actions.float(), context, zero)
            tokens = self._tokens(data.observations, self.sampling)
            before = data.previous_actions
            posterior = self._observe(tokens, before, data.first, data.initial, self.sampling)
            losses: dict[str, Tensor] = self.functions["model"](self, tokens, posterior, data)
            watched: dict[str, Tensor] = {}
            if self.config.actor_critic:
                more, behavior, watched = behavior_losses(self, posterior.latent, data)
                losses |= more
                scratch["return_low"], scratch["return_high"] = behavior.percentiles.unbind()
        scratch["deter"] = posterior.latent.deter.detach().float()
        scratch["stoch"] = to_codes(posterior.latent.stoch.detach())
        components = {name: loss.mean() for name, loss in losses.items()}
        scales = self.config.resolved_loss_scales
        total = torch.stack([scales.get(name, 1.0) * v for name, v in components.items()]).sum()
        return LossOutput(total, components, metrics_of(watched))

    def probe_loss(self, batch: Batch, scratch: Scratch) -> LossOutput:
        """What a probe decoder learns, from the latents of `loss` without their gradient."""
        latent = Latent(scratch["deter"], from_codes(scratch["stoch"], self.config.stoch_classes))
        steps = latent.deter.shape[1]
        seen = {name: value[:, -steps:] for name, value in self.observations(batch.obs).items()}
        with self._precision():
            return LossOutput(decoder_loss(self, latent, seen).mean(), {})

    @torch.no_grad()
    def after_update(self, scratch: Scratch) -> dict[str, Tensor]:
        """Store the return percentiles, move the slow critic, return the fresh latents.

        They are the `replay_columns` of the steps that were learned from (all but the context).
        """
        if "return_low" in scratch:
            percentiles = torch.stack([scratch["return_low"], scratch["return_high"]])
            self.return_normalizer.commit(percentiles)
            slow: list[Tensor] = list(self.slow_critic.parameters())
            fast: list[Tensor] = list(self.critic.parameters())
            torch._foreach_lerp_(slow, fast, self.config.slow_critic_fraction)
        return {name: scratch[name] for name in self.replay_columns() if name in scratch}

    # ------------------------------------------------------------------ imagination

    def imagined(self, latent: Latent, action: Tensor, weights: CoreWeights) -> Latent:
        """The latent after an action `[N, A]` in imagination, by the dynamics slot."""
        if not self.uses_own("dynamics_model", "action_conditioner"):
            state = self.transition(latent.state(), action, deterministic=not self.sampling)
            return Latent.of(state)
        noise = self.rssm.noise(action.shape[0]) if self.sampling else None
        return self.rssm.imagined(latent, squashed(action), weights, noise)

    def compile_for_training(self, on_fallback: Fallback) -> None:
        """Compile acting, the recurrences and the losses; of replaced parts only the recurrences.

        Raises:
            ConfigurationError: when the dynamics are replaced.
        """
        if not self.uses_own("dynamics_model", "action_conditioner"):
            raise ConfigurationError(
                "only the family's own dynamics are compiled, but a component slot holds others",
                hint="leave training.compile out",
            )
        eager = dict(self.functions)

        def go_back(reason: str) -> None:
            self.functions = eager
            on_fallback(reason)

        own = type(self) is DreamerV3WorldModel and self.uses_own(*COMPONENT_SLOTS)
        self.functions = compiled(eager, eager if own else ("observed", "imagined"), go_back)
        self.steady_updates = own

    def decoded(self, latent: Latent) -> dict[str, Tensor]:
        """What the decoder slot predicts of latents `[N, T, ...]`, by name."""
        steps = latent.deter.shape[:2]
        rows = Latent(latent.deter.flatten(0, 1), latent.stoch.flatten(0, 1)).state()
        predictions = self.decode(rows).predictions
        return {name: value.unflatten(0, steps) for name, value in predictions.items()}

    @torch.no_grad()
    def slow_value(self, features: Tensor) -> Tensor:
        """The slow critic's values `[...]` of features `[..., F]`, a regulariser only."""
        return self.slow_critic(features).pred()

    def _precision(self) -> AbstractContextManager[torch.autocast | None]:
        """Networks in `config.dtype`, or in the type that the Trainer chose.

        Distributions, norms and losses stay in float32. float16 needs the Trainer's loss scaling.
        """
        return computing_in(COMPUTE_TYPES[self.config.dtype], self.device)
