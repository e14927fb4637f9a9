"""The losses of BMPC (Wang et al. 2025): the on-policy value target, and imitation of the planner.

The model loss is TD-MPC2's (`worldflux.models.tdmpc2.losses.model_terms`) with this target. Nothing
here draws or changes anything.

Legend: H horizon, B batch, A action, L latent; time comes first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.models.tdmpc2.layers import Heads
from worldflux.models.tdmpc2.losses import weighted_steps
from worldflux.models.tdmpc2.maths import running_scale
from worldflux.models.tdmpc2.networks import Task

from .networks import BMPCNetworks


@dataclass(frozen=True)
class ImitationTerms:
    """The policy loss [], what to log of it [], and the new scale of the divergence []."""

    loss: Tensor
    entropy: Tensor
    scaled_entropy: Tensor
    log_std: Tensor
    scale: Tensor


@torch.no_grad()
def value_targets(
    networks: BMPCNetworks, z: Tensor, task: Task, noise: Tensor, heads: Heads | None
) -> Tensor:
    """`sum_j discount^j R(z_j, a_j) + discount^J V_target(z_J)` [H, B], J policy steps imagined.

    Args:
        z: encoded observations [H, B, L]; no replayed reward or action takes part.
        noise: of the policy's actions [J, H, B, A].
        heads: the two target heads that are averaged; None: all.

    Where ends are learned, nothing counts after a predicted one; the official code has no ends.
    """
    total, factor = torch.zeros_like(z[..., 0]), torch.ones_like(z[..., 0])
    for eps in noise:
        rows = networks.rows(z, networks.policy_action(z, task, eps), task)
        total = total + factor * networks.mean(networks.reward(rows))
        z, factor = networks.dynamics(rows), factor * task.discount
        if networks.termination is not None:
            factor = factor * (networks.termination(z).squeeze(-1) <= 0)  # probability <= 0.5
    value = networks.target_value(z.flatten(0, 1), heads).view_as(total)
    return total + factor * value


def stored_experts(batch: Batch, horizon: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation [H, B, A] stored with the actions; N(0, 1) in rows without an expert.

    Those are random actions and recorded data. They have a deviation of 0 in the replay, or NaN.
    """
    actions = batch.actions[:, :horizon].transpose(0, 1)
    none = torch.zeros_like(actions, dtype=torch.float32)
    found = [batch.extras.get(name) for name in ("expert_mean", "expert_std")]
    mean, std = (
        none if column is None else column[:, :horizon].transpose(0, 1) for column in found
    )
    known = std > 0
    return torch.where(known, mean, 0.0), torch.where(known, std, 1.0)


def gaussian_kl(mean: Tensor, log_std: Tensor, to_mean: Tensor, to_std: Tensor) -> Tensor:
    """`KL(N(mean, exp(log_std)) || N(to_mean, to_std))`, elementwise for any shape, in nats."""
    log_ratio = log_std - to_std.log()
    spread = (2 * log_ratio).exp() + ((mean - to_mean) / to_std).square()
    return 0.5 * (spread - 1) - log_ratio


def imitation_terms(
    networks: BMPCNetworks,
    settings: tuple[float, float],
    weights: Tensor,
    latents: Tensor,
    valid: Tensor,
    expert: tuple[Tensor, Tensor],
    scale: Tensor,
    noise: Tensor,
) -> ImitationTerms:
    """`KL(policy || expert) / scale - entropy_coef * entropy` over H states.

    Args:
        settings: step size of the scale, and the weight of the entropy.
        weights: rho^t [H].
        latents: rolled out [H, B, L], without gradient; the last one of the model loss is left out.
        valid: [H, B], 0 where an episode has ended: nothing was done there.
        expert: mean and deviation [H, B, A].
        scale: of the last update []; it moves with the divergence of the first step, before use.
    """
    tau, entropy_coef = settings
    sample = networks.sample(latents, noise)
    divergence = gaussian_kl(sample.mean, sample.log_std, *expert).mean(-1)
    scale = running_scale(scale, divergence[0].detach(), tau)
    loss = weighted_steps(divergence / scale - entropy_coef * sample.scaled_entropy, valid, weights)
    means = (v.detach().mean() for v in (sample.entropy, sample.scaled_entropy, sample.log_std))
    entropy, scaled_entropy, log_std = means
    return ImitationTerms(loss, entropy, scaled_entropy, log_std, scale)
