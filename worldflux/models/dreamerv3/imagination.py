"""Imagination: the policy acting in the model from replayed states, without gradients (Nature 2025,
"Critic learning").

Legend: N starts, H horizon, F features, A action. Imagined sequences have H + 1 states; index 0 is
the replayed state that they start from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from worldflux.errors import CapabilityError

from .rssm import CoreWeights, Latent

if TYPE_CHECKING:
    from .world_model import DreamerV3WorldModel


class Rollout(NamedTuple):
    """Imagined states, without gradients but for the policy's."""

    features: Tensor  # [N, H + 1, F]
    actions: Tensor  # [N, H, A]: at each state but the last
    hidden: Tensor  # [N, H, h]: what the policy's Dense layers made of these states


def imagine(model: DreamerV3WorldModel, start: Latent, allowed: Tensor | None = None) -> Rollout:
    """Roll the policy out in the model from latents `[N, ...]`.

    `allowed` `[N, A]` are the discrete actions that may be taken first. The policy's layers keep
    what their gradient needs: its loss would evaluate them again on the same states.
    """
    step, latent, horizon = model.functions["imagined"], start, model.config.imagination_horizon
    with torch.no_grad():
        weights, first = model.rssm.core_weights(), start.features()
    features = first.new_empty(len(first), horizon + 1, first.shape[-1])
    features[:, 0] = first
    actions, hidden = [], []
    for t in range(horizon):
        allowed_now = None if t else allowed
        action, latent, of_policy = step(model, features[:, t], latent, weights, allowed_now)
        actions.append(action)
        hidden.append(of_policy)
        # `data`: the policy's layers keep the states before this one, which it leaves as they are.
        latent.write_features(features.data[:, t + 1])
    return Rollout(features, torch.stack(actions, 1), torch.stack(hidden, 1))


def imagined_step(
    model: DreamerV3WorldModel,
    features: Tensor,
    latent: Latent,
    weights: CoreWeights,
    allowed: Tensor | None,
) -> tuple[Tensor, Latent, Tensor]:
    """The policy's action `[N, A]` at a latent with features `[N, F]`, the latent after it, and
    the output `[N, h]` of the policy's Dense layers."""
    hidden = model.actor.mlp(features)
    with torch.no_grad():
        policy = model.actor.of_hidden(hidden, allowed)
        action = policy.sample() if model.sampling else policy.mode()
        latent = model.imagined(latent, action, weights)
    return action, latent, hidden


@torch.no_grad()
def imagined_outcomes(model: DreamerV3WorldModel, features: Tensor) -> tuple[Tensor, Tensor]:
    """Reward and continue probability `[N, H + 1]` of features `[N, H + 1, F]`.

    Raises CapabilityError when a replaced decoder predicts only one of them.
    """
    if model.uses_own("decoder_module"):
        return model.reward(features).pred(), torch.sigmoid(model.continuation(features).float())
    deter, stoch = features.split([model.config.deter_dim, model.config.stoch_dim], -1)
    latent = Latent(deter, stoch.unflatten(-1, (-1, model.config.stoch_classes)))
    predictions = model.decoded(latent)
    for name in ("reward", "continue"):
        if name not in predictions:
            raise CapabilityError(f"the decoder component predicts no {name!r} to act on")
    return predictions["reward"], predictions["continue"]
