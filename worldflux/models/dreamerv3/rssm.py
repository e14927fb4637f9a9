"""The recurrent state-space model of DreamerV3: block-diagonal GRU and categorical latents.

Legend: B batch, T time, D deter, S groups, C classes, g blocks, h hidden, A action, E tokens.
`stoch` is `[B, S, C]`, one-hot with straight-through gradients; logits are raw, unimix is applied
whenever a distribution is built from them (Nature 2025, "World model learning").
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.models.dreamerv3.layers import BlockLinear, RMSNorm
from worldflux.models.dreamerv3.maths import (
    one_hot,
    pick,
    straight_through,
    uniform_noise,
    unimix_probs,
)
from worldflux.models.dreamerv3.networks import Dense, linear, mlp


class Latent(NamedTuple):
    """deter `[..., D]` and stoch `[..., S, C]`."""

    deter: Tensor
    stoch: Tensor

    def features(self) -> Tensor:
        """The input of the heads: deter first, then stoch flattened, `[..., D + S * C]`."""
        return torch.cat([self.deter, self.stoch.flatten(-2)], -1)

    @classmethod
    def of_features(cls, features: Tensor, deter: int, classes: int) -> Latent:
        """The inverse of `features`, for deter width D and C classes."""
        flat = features[..., deter:]
        return cls(features[..., :deter], flat.unflatten(-1, (-1, classes)))


class Posterior(NamedTuple):
    """What observing a sequence gives, `[B, T, ...]`.

    `prior_logits` is None where the RSSM's own prior of `latent.deter` is meant.
    """

    latent: Latent
    logits: Tensor
    prior_logits: Tensor | None


class CoreWeights(NamedTuple):
    """The first dynamics layer cut into its part for deter and its part for the inputs.

    All blocks see the same inputs, so their parts are one dense matrix; nothing is copied eight
    times, and what does not depend on the recurrence is multiplied for all steps at once.
    """

    deter: Tensor  # [g, D / g, D / g]
    recurrent: Tensor  # [2 h, D], for deter and stoch
    action: Tensor  # [h, D]


class RSSM(nn.Module):
    """Sequence model, prior and posterior.

    Args:
        deter, groups, classes, hidden, blocks: D, S, C, h, g.
        action_width, token_width: A, E.
        dynamics_layers, prior_layers, posterior_layers: layers before the GRU gates, before the
            prior's and before the posterior's logits.
        unimix: share of the uniform distribution in every latent distribution.
    """

    def __init__(
        self,
        *,
        deter: int,
        groups: int,
        classes: int,
        hidden: int,
        blocks: int,
        action_width: int,
        token_width: int,
        dynamics_layers: int,
        prior_layers: int,
        posterior_layers: int,
        unimix: float,
    ) -> None:
        super().__init__()
        self.deter, self.groups, self.classes = deter, groups, classes
        self.hidden, self.blocks, self.unimix = hidden, blocks, unimix
        stoch = groups * classes
        self.deter_in = Dense(deter, hidden)
        self.stoch_in = Dense(stoch, hidden)
        self.action_in = Dense(action_width, hidden)
        self.dynamics_in = BlockLinear(deter + 3 * hidden * blocks, deter, blocks)
        self.dynamics_in_norm = RMSNorm(deter)
        deeper = range(dynamics_layers - 1)
        self.dynamics = nn.ModuleList(BlockLinear(deter, deter, blocks) for _ in deeper)
        self.dynamics_norms = nn.ModuleList(RMSNorm(deter) for _ in deeper)
        self.gates = BlockLinear(deter, 3 * deter, blocks)
        self.prior = mlp(deter, hidden, prior_layers)
        self.prior_out = linear(hidden, stoch)
        self.posterior_in = Dense(deter + token_width, hidden)
        self.posterior = mlp(hidden, hidden, posterior_layers - 1)
        self.posterior_out = linear(hidden, stoch)

    # ------------------------------------------------------------------ distributions

    def initial(self, batch: int) -> Latent:
        """Zeros: there is no learned initial state."""
        weight = self.prior_out.weight
        return Latent(
            weight.new_zeros(batch, self.deter),
            weight.new_zeros(batch, self.groups, self.classes),
        )

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probabilities `[..., S, C]` of raw logits, with unimix."""
        return unimix_probs(logits, self.unimix).log()

    def noise(self, *leading: int) -> Tensor:
        """Noise `[*leading, S]` for `draw`, for as many steps as wanted in one call."""
        return uniform_noise(*leading, self.groups, device=self.prior_out.weight.device)

    def draw(self, logits: Tensor, noise: Tensor | None) -> Tensor:
        """A one-hot `[..., S, C]`, straight-through: sampled with noise, else the mode."""
        probs = unimix_probs(logits, self.unimix)
        return straight_through(pick(probs, noise), probs)

    def prior_logits(self, deter: Tensor) -> Tensor:
        """Raw logits `[..., S, C]` of p(z | deter)."""
        return self._grouped(self.prior_out(self.prior(deter)))

    def posterior_logits(self, deter: Tensor, tokens: Tensor) -> Tensor:
        """Raw logits `[..., S, C]` of q(z | deter, tokens)."""
        hidden = self.posterior_in(torch.cat([deter, tokens], -1))
        return self._grouped(self.posterior_out(self.posterior(hidden)))

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
        x = torch.addmm(drive, inputs, weights.recurrent) + own
        x = F.silu(self.dynamics_in_norm(x))
        for layer, norm in zip(self.dynamics, self.dynamics_norms, strict=True):
            x = F.silu(norm(layer(x)))
        return self._gru(x, latent.deter)

    def _gru(self, x: Tensor, deter: Tensor) -> Tensor:
        # Each block's output holds its own three gates; they are not thirds of the flat vector.
        gates = self.gates(x).to(deter.dtype).unflatten(-1, (self.blocks, 3, -1))
        reset, candidate, update = (gate.flatten(-2) for gate in gates.unbind(-2))
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        return torch.lerp(deter, candidate, torch.sigmoid(update - 1))

    def imagined(
        self, latent: Latent, action: Tensor, weights: CoreWeights, noise: Tensor | None
    ) -> Latent:
        """One step of the prior for a squashed action `[N, A]`; noise `[N, S]`, None: the mode."""
        deter = self.core(latent, self.action_drive(action, weights), weights)
        return Latent(deter, self.draw(self.prior_logits(deter), noise))

    def next_deter(self, latent: Latent, action: Tensor) -> Tensor:
        """One step of the core for a squashed action `[B, A]`."""
        weights = self.core_weights()
        return self.core(latent, self.action_drive(action, weights), weights)

    # ------------------------------------------------------------------ sequences

    def observe(
        self,
        tokens: Tensor,
        actions: Tensor,
        is_first: Tensor,
        initial: Latent,
        noise: Tensor | None,
    ) -> Posterior:
        """The posterior along a sequence.

        Args:
            tokens: `[B, T, E]`.
            actions: squashed, `[B, T, A]`; the one taken *before* each observation.
            is_first: `[B, T]`; deter, stoch and action are zeroed before such a step.
            initial: the latent before the first step.
            noise: `[B, T, S]` to sample with; None takes modes.
        """
        keep = (~is_first).to(tokens.dtype).unsqueeze(-1)
        weights = self.core_weights()
        drives = self.action_drive(actions * keep, weights).unbind(1)
        by_deter, by_tokens = self.posterior_in.linear.weight.split(
            [self.deter, tokens.shape[-1]], dim=1
        )
        offsets = F.linear(tokens, by_tokens, self.posterior_in.linear.bias).unbind(1)
        by_deter = by_deter.t()
        keeps = keep.unbind(1)
        noises = [None] * tokens.shape[1] if noise is None else noise.unbind(1)
        latent, deters, stochs, logits = initial, [], [], []
        for t in range(tokens.shape[1]):
            kept = Latent(latent.deter * keeps[t], latent.stoch * keeps[t].unsqueeze(-1))
            deter = self.core(kept, drives[t], weights)
            hidden = torch.addmm(offsets[t], deter, by_deter)
            hidden = self.posterior(F.silu(self.posterior_in.norm(hidden)))
            logit = self._grouped(self.posterior_out(hidden))
            latent = Latent(deter, self.draw(logit, noises[t]))
            deters.append(deter)
            stochs.append(latent.stoch)
            logits.append(logit)
        latents = Latent(torch.stack(deters, 1), torch.stack(stochs, 1))
        return Posterior(latents, torch.stack(logits, 1), None)


def to_codes(stoch: Tensor) -> Tensor:
    """One-hot `[..., S, C]` -> class + 1 as float `[..., S]`; 0 where there is no class yet.

    The form in which latents stand in the acting memory and in the replay: 4 bytes a group, and
    rows that no policy has filled (zeros) mean the zero state that every episode starts from.
    """
    present = stoch.sum(-1) > 0.5
    return (stoch.argmax(-1) + 1) * present.to(torch.float32)


def from_codes(codes: Tensor, classes: int) -> Tensor:
    """The inverse of `to_codes`: `[..., S] -> [..., S, C]`."""
    return one_hot(codes.long(), classes + 1)[..., 1:]


def squashed(action: Tensor) -> Tensor:
    """Actions as the core takes them: a / max(1, |a|), element by element, without gradient."""
    return action / action.detach().abs().clamp(min=1.0)
