"""A Gaussian squashed by tanh: the policy head of TD-MPC2.

Shape legend: A action dimensions; `...` any leading axes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class PolicySample:
    """One draw of a squashed Gaussian.

    `action` and `mean` are [..., A] in (-1, 1); `log_std` [..., A] is of the Gaussian before tanh;
    `entropy` and `scaled_entropy` are [...] estimates from this one sample.
    """

    action: Tensor
    mean: Tensor
    log_std: Tensor
    entropy: Tensor
    scaled_entropy: Tensor


def bounded_log_std(raw: Tensor, low: float, high: float) -> Tensor:
    """Map a network output smoothly into [low, high]: `low + (high - low)(tanh(raw) + 1)/2`."""
    return low + 0.5 * (high - low) * (torch.tanh(raw) + 1)


def gaussian_log_prob(eps: Tensor, log_std: Tensor) -> Tensor:
    """Log density [...] of `mean + eps exp(log_std)`, summed over the last axis of [..., A]."""
    return (-0.5 * eps.square() - log_std - _HALF_LOG_TWO_PI).sum(-1)


def squash_correction(action: Tensor) -> Tensor:
    """`sum_i ln(1 - a_i^2 + 1e-6)`: what tanh adds to the log density of a = tanh(u); [...]."""
    return torch.log(torch.relu(1 - action.square()) + 1e-6).sum(-1)


def sample_action(mean: Tensor, log_std: Tensor, eps: Tensor) -> Tensor:
    """`tanh(mean + eps exp(log_std))`: [..., A]; all that acting needs of a draw."""
    return torch.tanh(torch.addcmul(mean, eps, log_std.exp()))


def sample_policy(
    mean: Tensor, log_std: Tensor, eps: Tensor, num_actions: float | Tensor
) -> PolicySample:
    """Draw with given noise, and estimate the entropies that the policy loss uses.

    The scaled entropy `-logp * (A logp_gauss) / (logp + 1e-8)` is the official one: in effect
    `-A logp_gauss`, the tanh correction cancels (spec 10, Q1).

    Args:
        mean: of the Gaussian before tanh [..., A].
        log_std: its log standard deviation [..., A].
        eps: standard normal noise [..., A].
        num_actions: valid action dimensions, a number or [...].
    """
    log_prob_gauss = gaussian_log_prob(eps, log_std)
    action = sample_action(mean, log_std, eps)
    log_prob = log_prob_gauss - squash_correction(action)
    scaled = log_prob_gauss * num_actions
    return PolicySample(
        action=action,
        mean=torch.tanh(mean),
        log_std=log_std,
        entropy=-log_prob,
        scaled_entropy=-log_prob * scaled / (log_prob + 1e-8),
    )
