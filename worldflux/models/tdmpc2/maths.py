"""The mathematics of TD-MPC2 (Hansen et al. 2024, 3.1): two-hot scalars, the squashed Gaussian,
the running scale of Q values, target networks.

Shape legend: K equally spaced bins in symlog space; A action dimensions; `...` any leading axes.
The two-hot mean is taken in symlog space and only then mapped back, unlike DreamerV3's."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.core.shards import across_shards
from worldflux.nn import log_probs_at, symexp, symlog


@dataclass(frozen=True)
class SymlogBins:
    """K >= 2 equally spaced bins from `low` to `high` in symlog space."""

    low: float
    high: float
    num: int

    def values(self, device: torch.device | None = None) -> Tensor:
        """The bins [K]."""
        return torch.linspace(self.low, self.high, self.num, device=device)

    def position(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The lower bin's index (int64) and the weight in [0, 1) of the bin above it, each [...].

        At the highest bin the weight above is 0, so that the index above may wrap around.
        """
        y = symlog(x).clamp(self.low, self.high)
        position = (y - self.low) / ((self.high - self.low) / (self.num - 1))
        lower = torch.floor(position)
        return lower.long(), position - lower


def two_hot(x: Tensor, bins: SymlogBins) -> Tensor:
    """The two-hot target of scalars: [...] -> [..., K], each row summing to 1."""
    lower, weight = bins.position(x)
    target = torch.zeros(*x.shape, bins.num, dtype=x.dtype, device=x.device)
    target.scatter_(-1, lower.unsqueeze(-1), (1 - weight).unsqueeze(-1))
    return target.scatter_add_(-1, ((lower + 1) % bins.num).unsqueeze(-1), weight.unsqueeze(-1))


def two_hot_mean(logits: Tensor, bin_values: Tensor) -> Tensor:
    """`symexp(softmax(logits) . bins)`: [..., K], [K] -> [...], in the precision of the bins."""
    probabilities = torch.softmax(logits, dim=-1, dtype=bin_values.dtype)
    # A matmul under autocast would be rounded to 8 bits ("meta" has no autocast to ask for).
    if not logits.is_meta and torch.is_autocast_enabled(logits.device.type):
        return symexp((probabilities * bin_values).sum(-1))
    return symexp(probabilities @ bin_values)


def two_hot_cross_entropy(logits: Tensor, x: Tensor, bins: SymlogBins) -> Tensor:
    """Cross entropy [...] in nats between the two-hot targets of scalars `x` and logits [..., K].

    `x` is broadcastable to [...]. Only the two bins with weight are read, so no [..., K] target is
    built.
    """
    lower, weight = bins.position(x)
    lower = lower.clamp(0, bins.num - 1)  # NaN has no bin: its weight, and so the loss, is NaN
    pair = torch.stack([lower, (lower + 1) % bins.num], dim=-1).expand(*logits.shape[:-1], 2)
    weights = torch.stack([1 - weight, weight], dim=-1)
    return -(log_probs_at(logits.to(weights.dtype), pair) * weights).sum(-1)


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
    """Draw with normal noise [..., A], and estimate the entropies that the policy loss uses.

    `mean` and `log_std` [..., A] are of the Gaussian before tanh; `num_actions` counts the valid
    dimensions, a number or [...]. The scaled entropy `-logp * (A logp_gauss) / (logp + 1e-8)` is
    the official one: in effect `-A logp_gauss`, the tanh correction cancels.
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


def percentile_range(x: Tensor, low: float = 5.0, high: float = 95.0) -> Tensor:
    """Distance [] between two percentiles of `x` [B], linearly interpolated."""
    ordered = torch.sort(x).values
    last = len(ordered) - 1

    def percentile(p: float) -> Tensor:
        position = p * last / 100
        floor = int(position)
        weight = position - floor
        return ordered[floor] * (1 - weight) + ordered[min(floor + 1, last)] * weight

    return percentile(high) - percentile(low)


def running_scale(scale: Tensor, x: Tensor, tau: float) -> Tensor:
    """One step of the scale [] from values [B]: `S + tau (max(p95 - p5, 1) - S)`; S stays >= 1.

    The percentiles are those of the whole batch.
    """
    return torch.lerp(scale, percentile_range(across_shards(x)).clamp(min=1.0), tau)


@torch.no_grad()
def lerp_targets_(targets: Iterable[Tensor], online: Iterable[Tensor], tau: float) -> None:
    """`target <- target + tau (online - target)`, in place, one call for tensors of any shape."""
    torch._foreach_lerp_(list(targets), list(online), tau)
