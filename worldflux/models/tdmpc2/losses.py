"""The loss terms of TD-MPC2 as functions of predictions and targets (paper, Eq. 3-4).

Legend: H horizon, B batch, N heads, K bins, L latent. `weights` are rho^t [H] (or [H + 1]);
`valid` [H, B] is 1 where the step is a real transition and 0 from an episode boundary on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from worldflux.models.tdmpc2.maths import SymlogBins, two_hot_cross_entropy


def weighted_steps(per_entry: Tensor, valid: Tensor, weights: Tensor) -> Tensor:
    """`1/H sum_t weights_t mean_B(per_entry)`: [..., H, B] -> [...]."""
    return ((per_entry * valid).mean(-1) * weights).mean(-1)


def consistency_loss(predicted: Tensor, encoded: Tensor, valid: Tensor, weights: Tensor) -> Tensor:
    """Squared distance of predicted latents to encoded ones, both [H, B, L]."""
    return weighted_steps((predicted.float() - encoded.float()).square().mean(-1), valid, weights)


def reward_loss(
    logits: Tensor, rewards: Tensor, bins: SymlogBins, valid: Tensor, weights: Tensor
) -> Tensor:
    """Two-hot cross entropy of reward logits [H, B, K] against rewards [H, B]."""
    return weighted_steps(two_hot_cross_entropy(logits, rewards, bins), valid, weights)


def value_loss(
    logits: Tensor, targets: Tensor, bins: SymlogBins, valid: Tensor, weights: Tensor
) -> Tensor:
    """Two-hot cross entropy of every head's logits [N, H, B, K] against TD targets [H, B]."""
    return weighted_steps(two_hot_cross_entropy(logits, targets, bins), valid, weights).mean()


def termination_loss(logits: Tensor, terminated: Tensor, valid: Tensor) -> Tensor:
    """Binary cross entropy [H, B] of termination logits of z_1..z_H; not weighted by rho."""
    entropy = F.binary_cross_entropy_with_logits(logits.float(), terminated, reduction="none")
    return (entropy * valid).mean()


def policy_loss(
    value: Tensor,
    scaled_entropy: Tensor,
    entropy_coef: float,
    valid: Tensor,
    weights: Tensor,
) -> Tensor:
    """`-(entropy_coef * entropy + Q)` over H + 1 states, [H + 1, B] each, Q already scaled."""
    return weighted_steps(-(entropy_coef * scaled_entropy + value), valid, weights)


def td_targets(
    rewards: Tensor, terminated: Tensor, next_value: Tensor, discount: float | Tensor
) -> Tensor:
    """`r + discount (1 - terminated) Q`: [H, B] each, discount a number or [B]."""
    return rewards + discount * (1 - terminated) * next_value


def termination_statistics(logits: Tensor, terminated: Tensor) -> dict[str, float]:
    """Rate of true ends and F1 score of predicted ones at probability 0.5; both inputs [B]."""
    predicted, actual = torch.sigmoid(logits) > 0.5, terminated > 0.5
    hits = int((predicted & actual).sum())
    recall = hits / (int(actual.sum()) + 1e-9)
    precision = hits / (int(predicted.sum()) + 1e-9)
    f1 = 2 * precision * recall / (precision + recall + 1e-9)
    return {"termination_rate": float(actual.float().mean()), "termination_f1": f1}
