"""Imagination: the policy acting in the model from replayed states, without gradients (Nature 2025,
"Critic learning").

Legend: N starts, H horizon, F features, A action. Imagined sequences have H + 1 states; index 0 is
the replayed state that they start from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from worldflux.errors import CapabilityError

from .rssm import CoreWeights, Latent

if TYPE_CHECKING:
    from .world_model import DreamerV3WorldModel


@torch.no_grad()
def imagine(
    model: DreamerV3WorldModel, start: Latent, allowed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Roll the policy out in the model from latents `[N, ...]`, without gradients.

    `allowed` `[N, A]` are the discrete actions that may be taken first.
    Returns: features `[N, H + 1, F]`, and the action at each state but the last `[N, H, A]`.
    """
    step, latent, horizon = model.functions["imagined"], start, model.config.imagination_horizon
    weights, first, actions = model.rssm.core_weights(), start.features(), []
    features = first.new_empty(len(first), horizon + 1, first.shape[-1])
    features[:, 0] = first
    for t in range(horizon):
        action, latent = step(model, features[:, t], latent, weights, None if t else allowed)
        actions.append(action)
        latent.write_features(features[:, t + 1])
    return features, torch.stack(actions, 1)


def imagined_step(
    model: DreamerV3WorldModel,
    features: Tensor,
    latent: Latent,
    weights: CoreWeights,
    allowed: Tensor | None,
) -> tuple[Tensor, Latent]:
    """The policy's action `[N, A]` at a latent with features `[N, F]`, and the latent after it."""
    policy = model.actor(features, allowed)
    action = policy.sample() if model.sampling else policy.mode()
    return action, model.imagined(latent, action, weights)


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
