"""The recurrent state-space model of DreamerV3: block-diagonal GRU and categorical latents.

Legend: B batch, T time, D deter, S groups, C classes, g blocks, h hidden, A action, E tokens.
`stoch` is `[B, S, C]`, one-hot with straight-through gradients; logits are raw, unimix is applied
whenever a distribution is built from them (Nature 2025, "World model learning").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.core.payloads import ConditionPayload
from worldflux.core.state import State

from .config import DreamerV3Config
from .layers import BlockLinear, Dense, RMSNorm, linear, mlp
from .maths import one_hot, pick, straight_through, uniform_noise, unimix_probs


class Latent(NamedTuple):
    """deter `[..., D]` and stoch `[..., S, C]`."""

    deter: Tensor
    stoch: Tensor

    def features(self) -> Tensor:
        """The input of the heads: deter first, then stoch flattened, `[..., D + S * C]`."""
        return torch.cat([self.deter, self.stoch.flatten(-2)], -1)

    def write_features(self, out: Tensor) -> None:
        """Write `features()` into `out` `[N, D + S * C]`."""
        width = self.deter.shape[-1]
        out[:, :width] = self.deter
        out[:, width:] = self.stoch.flatten(-2)

    def state(self, **more: Tensor) -> State:
        """The same as a State `[B, ...]`, with `more` tensors."""
        return State({"deter": self.deter, "stoch": self.stoch, **more})

    @classmethod
    def of(cls, state: State) -> Latent:
        """The latent of a state that holds `deter` and `stoch`."""
        return cls(state["deter"], state["stoch"])


class Posterior(NamedTuple):
    """What observing a sequence gives, `[B, T, ...]`; without `prior_logits` the RSSM's own."""

    latent: Latent
    logits: Tensor
    prior_logits: Tensor | None


class CoreWeights(NamedTuple):
    """The first dynamics layer cut into its part for deter and its part for the inputs.

    All blocks see the same inputs, so their parts are one dense matrix, and what does not depend
    on the recurrence is multiplied for all steps at once.
    """

    deter: Tensor  # [g, D / g, D / g]
    recurrent: Tensor  # [2 h, D], for deter and stoch
    action: Tensor  # [h, D]


class ObservedSteps(NamedTuple):
    """What a recurrence over observed steps takes of each, `[B, T, ...]`, found for all at once."""

    kept: Tensor  # [B, T, 1]: 0 where an episode begins, else 1
    drives: Tensor  # [B, T, D]: `action_drive` of the actions before the observations
    offsets: Tensor  # [B, T, h]: the tokens' part of the first posterior layer, bias included
    noise: Tensor | None  # [B, T, S]; None: modes

    def between(self, start: int, end: int) -> ObservedSteps:
        """The steps from `start` to `end`."""
        return ObservedSteps(*(None if x is None else x[:, start:end] for x in self))  # type: ignore[arg-type]


class RSSM(nn.Module):
    """Sequence model, prior and posterior of a configuration, over tokens of width E."""

    part_name = "dynamics"

    def __init__(self, config: DreamerV3Config, token_width: int) -> None:
        super().__init__()
        self.deter, self.hidden, self.blocks = config.deter_dim, config.hidden_dim, config.blocks
        self.groups, self.classes = config.stoch_discrete, config.stoch_classes
        self.unimix = config.unimix
        deter, stoch, hidden = config.deter_dim, config.stoch_dim, config.hidden_dim
        self.deter_in = Dense(deter, hidden)
        self.stoch_in = Dense(stoch, hidden)
        self.action_in = Dense(config.action_dim, hidden)
        self.dynamics_in = BlockLinear(deter + 3 * hidden * self.blocks, deter, self.blocks)
        self.dynamics_in_norm = RMSNorm(deter)
        deeper = range(config.num_dynamics_layers - 1)
        self.dynamics = nn.ModuleList(BlockLinear(deter, deter, self.blocks) for _ in deeper)
        self.dynamics_norms = nn.ModuleList(RMSNorm(deter) for _ in deeper)
        self.gates = BlockLinear(deter, 3 * deter, self.blocks)
        self.prior = mlp(deter, hidden, config.num_prior_layers)
        self.prior_out = linear(hidden, stoch)
        self.posterior_in = Dense(deter + token_width, hidden)
        self.posterior = mlp(hidden, hidden, config.num_posterior_layers - 1)
        self.posterior_out = linear(hidden, stoch)

    # ------------------------------------------------------------------ distributions

    def initial(self, batch: int) -> Latent:
        """Zeros: there is no learned initial state."""
        weight, groups = self.prior_out.weight, (batch, self.groups, self.classes)
        return Latent(weight.new_zeros(batch, self.deter), weight.new_zeros(groups))

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probabilities `[..., S, C]` of raw logits, with unimix."""
        return unimix_probs(logits, self.unimix).log()

    def noise(self, *leading: int) -> Tensor:
        """Noise `[*leading, S]` for `draw`, of many steps in one call."""
        return uniform_noise(*leading, self.groups, device=self.prior_out.weight.device)

    def draw(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """A one-hot `[..., S, C]`, straight-through: sampled with noise, else the mode."""
        probs = unimix_probs(logits, self.unimix)
        return straight_through(pick(probs, noise), probs)

    def prior_logits(self, deter: Tensor) -> Tensor:
        """Raw logits `[..., S, C]` of p(z | deter)."""
        return self._grouped(self.prior_out(self.prior(deter)))

    def posterior_logits(self, product: Tensor) -> Tensor:
        """Raw logits `[..., S, C]` of q(z | deter, tokens), from their first matrix product."""
        hidden = self.posterior(F.silu(self.posterior_in.norm(product)))
        return self._grouped(self.posterior_out(hidden))

    def _grouped(self, flat: Tensor) -> Tensor:
        return flat.unflatten(-1, (self.groups, self.classes))

    # ------------------------------------------------------------------ recurrence

    def core_weights(self) -> CoreWeights:
        """The split of the first dynamics layer; take it once for a whole sequence."""
        weight = self.dynamics_in.weight
        own = self.deter // self.blocks
        shared = weight[:, own:].transpose(0, 1).reshape(3 * self.hidden, self.deter)
        recurrent, action = shared.split([2 * self.hidden, self.hidden])
        return CoreWeights(weight[:, :own], recurrent, action)

    def action_drive(self, action: Tensor, weights: CoreWeights) -> Tensor:
        """What a (squashed) action adds to the first dynamics layer, bias included: `[..., D]`."""
        return F.linear(self.action_in(action), weights.action.t(), self.dynamics_in.bias)

    def core(self, latent: Latent, drive: Tensor, weights: CoreWeights) -> Tensor:
        """The next deter `[B, D]` from the latent before it and `action_drive` `[B, D]`."""
        stoch = latent.stoch.flatten(-2)
        inputs = torch.cat([self.deter_in(latent.deter), self.stoch_in(stoch)], -1)
        # [g, B, D / g]: bmm reads this view in place.
        blocks = latent.deter.unflatten(-1, (self.blocks, -1)).transpose(0, 1)
        own = torch.bmm(blocks, weights.deter).transpose(0, 1).flatten(-2)
        return self._deeper(torch.addmm(drive, inputs, weights.recurrent) + own, latent.deter)

    def _deeper(self, x: Tensor, deter: Tensor) -> Tensor:
        """The next deter `[B, D]` from the output of the first dynamics layer."""
        x = F.silu(self.dynamics_in_norm(x))
        for layer, norm in zip(self.dynamics, self.dynamics_norms, strict=True):
            x = F.silu(norm(layer(x)))
        return self._gru(x, deter)

    def _gru(self, x: Tensor, deter: Tensor) -> Tensor:
        # Each block's output holds its own three gates; they are not thirds of the flat vector.
        gates = self.gates.by_block(x).to(deter.dtype)
        reset, candidate, update = gates.chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        before = deter.unflatten(-1, (self.blocks, -1)).transpose(0, 1)
        after = torch.lerp(before, candidate, torch.sigmoid(update - 1))
        return after.transpose(0, 1).flatten(-2)

    def imagined(
        self, latent: Latent, action: Tensor, weights: CoreWeights, noise: Tensor | None
    ) -> Latent:
        """One step of the prior for a squashed action `[N, A]`; noise `[N, S]`, None: the mode."""
        deter = self.core(latent, self.action_drive(action, weights), weights)
        return Latent(deter, self.draw(self.prior_logits(deter), noise))

    def next_deter(self, latent: Latent, action: Tensor) -> Tensor:
        """One step of the core for a squashed action `[B, A]`.

        The same as `core`; for a single step, splitting the weights would cost more than it saves.
        """
        stoch = latent.stoch.flatten(-2)
        inputs = (self.deter_in(latent.deter), self.stoch_in(stoch), self.action_in(action))
        shared = torch.cat(inputs, -1).expand(self.blocks, -1, -1)
        blocks = latent.deter.unflatten(-1, (self.blocks, -1)).transpose(0, 1)
        layer = self.dynamics_in
        own = torch.bmm(torch.cat([blocks, shared], -1), layer.weight).transpose(0, 1).flatten(-2)
        return self._deeper(own + layer.bias, latent.deter)

    def observed(
        self, tokens: Tensor, action: Tensor, before: Latent, noise: Tensor | None
    ) -> tuple[Latent, Tensor]:
        """One step of `observe`, for acting: the latent after tokens `[N, E]`, and its `to_codes`.

        `before` and `action` `[N, A]` are zero where an episode begins; noise `[N, S]`.
        """
        deter = self.next_deter(before, squashed(action))
        hidden = self.posterior(self.posterior_in(torch.cat([deter, tokens], -1)))
        probs = unimix_probs(self._grouped(self.posterior_out(hidden)), self.unimix)
        index = pick(probs, noise)
        return Latent(deter, one_hot(index, self.classes)), (index + 1).to(torch.float32)

    # ------------------------------------------------------------------ sequences

    def observe(
        self,
        tokens: Tensor,
        actions: Tensor,
        is_first: Tensor,
        initial: Latent,
        noise: Tensor | None,
        transition: Callable[..., State] | None = None,
        recurrence: Callable[..., Posterior] | None = None,
    ) -> Posterior:
        """The posterior along tokens `[B, T, E]`, after the `initial` latent.

        `actions` `[B, T, A]` are the ones taken *before* each observation; deter, stoch and action
        are zeroed before a step that `is_first` `[B, T]`. Without noise `[B, T, S]` modes are
        taken. `transition` is `WorldModel.transition`, to predict with replaced components;
        `recurrence` a compiled `observed_steps`.
        """
        kept = (~is_first).to(tokens.dtype).unsqueeze(-1)
        actions = actions * kept
        weights = self.core_weights()
        drives = self.action_drive(squashed(actions), weights)
        first_layer = self.posterior_in.linear
        of_deter, of_tokens = first_layer.weight.split([self.deter, tokens.shape[-1]], dim=1)
        offsets = F.linear(tokens, of_tokens, first_layer.bias)
        steps = ObservedSteps(kept, drives, offsets, noise)
        if transition is None:
            recurrence = recurrence or RSSM.observed_steps
            return recurrence(self, steps, initial, weights, of_deter.t())

        def predict(before: Latent, t: int) -> State:
            return transition(before.state(), actions[:, t], deterministic=noise is None)

        return self.observed_steps(steps, initial, weights, of_deter.t(), predict)

    def observed_steps(
        self,
        steps: ObservedSteps,
        latent: Latent,
        weights: CoreWeights,
        of_deter: Tensor,
        predict: Callable[[Latent, int], State] | None = None,
    ) -> Posterior:
        """The posterior along T steps after a latent; `of_deter` `[D, h]` is deter's part of the
        first posterior layer. `predict(before, t)` replaces the core and the prior."""
        noises = [None] * steps.kept.shape[1] if steps.noise is None else steps.noise.unbind(1)
        deters, stochs, logits = [], [], []
        priors: list[Tensor] = []
        inputs = zip(*(x.unbind(1) for x in steps[:3]), noises, strict=True)
        for t, (kept, drive, offset, noise) in enumerate(inputs):
            before = Latent(latent.deter * kept, latent.stoch * kept.unsqueeze(-1))
            if predict is None:
                deter = self.core(before, drive, weights)
            else:
                predicted = predict(before, t)
                deter = predicted["deter"]
                priors.append(predicted["logits"])
            logit = self.posterior_logits(torch.addmm(offset, deter, of_deter))
            latent = Latent(deter, self.draw(logit, noise))
            deters.append(deter)
            stochs.append(latent.stoch)
            logits.append(logit)
        latents = Latent(torch.stack(deters, 1), torch.stack(stochs, 1))
        prior_logits = torch.stack(priors, 1) if priors else None
        return Posterior(latents, torch.stack(logits, 1), prior_logits)


def to_codes(stoch: Tensor) -> Tensor:
    """One-hot `[..., S, C]` -> class + 1 as float `[..., S]`; 0 where there is no class yet.

    The form of latents in the acting memory and the replay: rows of zeros are the initial state.
    """
    present = stoch.sum(-1) > 0.5
    return (stoch.argmax(-1) + 1) * present.to(torch.float32)


def from_codes(codes: Tensor, classes: int) -> Tensor:
    """The inverse of `to_codes`: `[..., S] -> [..., S, C]`."""
    return one_hot(codes.long(), classes + 1)[..., 1:]


def squashed(action: Tensor) -> Tensor:
    """Actions as the core takes them: a / max(1, |a|), element by element, without gradient."""
    return action / action.detach().abs().clamp(min=1.0)


# --------------------------------------------------------------------------- component slots


@dataclass(eq=False)
class ActionSquash:
    """Slot `action_conditioner`: a / max(1, |a|) per element; no action is a zero action."""

    action_dim: int

    def condition(
        self, state: State, action: Tensor | None, conditions: ConditionPayload
    ) -> Tensor | None:
        if action is None:
            return state["deter"].new_zeros(state.batch_size, self.action_dim)
        return squashed(action)


@dataclass(eq=False)
class RSSMDynamics:
    """Slot `dynamics_model`: one step of the sequence model and the prior.

    A replacement returns a State with `deter` `[B, D]`, `stoch` and `logits` `[B, S, C]`.
    """

    rssm: RSSM

    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        assert conditioned is not None
        deter = self.rssm.next_deter(Latent.of(state), conditioned)
        logits = self.rssm.prior_logits(deter)
        noise = None if deterministic else self.rssm.noise(state.batch_size)
        return Latent(deter, self.rssm.draw(logits, noise)).state(logits=logits)
