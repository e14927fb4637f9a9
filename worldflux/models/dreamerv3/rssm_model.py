"""`RSSMWorldModel`: the parts of DreamerV3, and how it sees and imagines with them.

Legend: B batch, T time, N starts, H horizon, D deter, S groups, C classes, E tokens, F features,
A action. Source: Hafner et al. 2025 (Nature), in the form of today's official code.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

from worldflux.core.components import COMPONENT_SLOTS
from worldflux.core.config import DreamerV3Config
from worldflux.core.inputs import steps_as_rows
from worldflux.core.learning import CompiledFunction, Fallback
from worldflux.core.specs import Capability
from worldflux.core.state import State
from worldflux.core.world_model import Observation, WorldModel
from worldflux.errors import CapabilityError, ConfigurationError
from worldflux.models.dreamerv3 import components
from worldflux.models.dreamerv3.components import (
    ActionSquash,
    HeadsDecoder,
    RSSMDynamics,
    TokenEncoder,
    dreamer_state,
    latent_of,
    observe_by_steps,
    prediction_name,
)
from worldflux.models.dreamerv3.losses import Experience, prediction_losses
from worldflux.models.dreamerv3.rssm import RSSM, Latent, Posterior, squashed
from worldflux.models.dreamerv3.spaces import action_parts, observation_keys, rows_of_indices


class RSSMWorldModel(WorldModel):
    """The parts of DreamerV3 in their slots; `DreamerV3WorldModel` acts and learns with them.

    Where a slot still holds the family's own part, a fused path computes what the slot would.
    `sampling` False replaces every draw by the mode.
    """

    config: DreamerV3Config

    def __init__(self, config: DreamerV3Config) -> None:
        super().__init__(config)
        self.sampling = True
        self.keys, self.parts = observation_keys(config), action_parts(config)
        self.encoder = components.build_encoder(config, self.keys)
        self.rssm = components.build_rssm(config, self.encoder.token_width)
        self.decoder = components.build_decoder(config, self.keys)
        self.reward = components.build_reward_head(config)
        self.continuation = components.build_continue_head(config)
        self.actor = components.build_actor(config, self.parts)
        self.critic = components.build_critic(config)
        self.slow_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.return_normalizer = components.build_return_normalizer(config)
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
        self._imagined: Callable[..., Latent] = RSSM.imagined
        # The fused paths hold as long as these very parts stand in the slots.
        self._own_dynamics = (self.dynamics_model, self.action_conditioner)
        self._own_decoder = self.decoder_module
        self.composable_support = set(COMPONENT_SLOTS)
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

    # ------------------------------------------------------------------ through the slots

    def _tokens(self, observations: dict[str, Tensor], sample: bool) -> Tensor:
        """Tokens `[..., E]` of named observations `[..., *shape]` from the encoder slot."""
        key = self.keys[0]
        leading = observations[key.name].shape[: -len(key.shape)]
        flat = {k.name: observations[k.name].flatten(0, len(leading) - 1) for k in self.keys}
        seen = self.encode_named(flat, not sample)
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
            noise = rssm.noise(action.shape[0]) if self.sampling else None
            return self._imagined(rssm, latent, squashed(action), weights, noise)

        return fused_step

    def compile_for_training(self, on_fallback: Fallback) -> None:
        """Compile the imagined step, which an update repeats most: starts x horizon times.

        Raises:
            ConfigurationError: when a component slot holds other dynamics than the family's own.
        """
        if not self._uses_own_dynamics():
            raise ConfigurationError(
                "only the family's own dynamics are compiled, and a component slot holds others",
                hint="leave training.compile out",
            )

        def go_back(reason: str) -> None:
            self._imagined = RSSM.imagined
            on_fallback(reason)

        self._imagined = CompiledFunction(RSSM.imagined, go_back)

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
