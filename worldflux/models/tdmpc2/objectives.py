"""The two objectives of an update as functions of tensors alone (paper, Eq. 3-4).

They draw nothing and change nothing, so that they give the same numbers eagerly and compiled; the
model draws the random numbers first (`Draws`), in the official order.

Legend: H horizon, B batch, N heads, L latent, A action, M hidden width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.models.tdmpc2.layers import Heads
from worldflux.models.tdmpc2.maths import running_scale

from . import losses
from .networks import Networks, Task
from .sequences import Transitions


@dataclass(frozen=True)
class Draws:
    """Random numbers of one objective over T steps.

    Policy noise [T, B, A], the two Q heads (None: all there are) and the dropout of all heads
    [N, T * B, M] (None: no dropout).
    """

    noise: Tensor
    heads: Heads | None
    dropout: Tensor | None


@dataclass(frozen=True)
class ModelTerms:
    """The loss terms by name, unscaled; the termination logits [H, B] where there are any."""

    parts: dict[str, Tensor]
    termination_logits: Tensor | None


@dataclass(frozen=True)
class PolicyTerms:
    """The policy loss [], the mean entropies [] to log, and the new scale of Q."""

    loss: Tensor
    entropy: Tensor
    scaled_entropy: Tensor
    scale: Tensor


def imagine(networks: Networks, z: Tensor, actions: Tensor, task: Task) -> Tensor:
    """Latents [H + 1, B, L] from z [B, L] under actions [H, B, A]."""
    latents = [z]
    for action in actions:
        latents.append(networks.dynamics(networks.rows(latents[-1], action, task)))
    return torch.stack(latents)


def imagined_model_terms(
    networks: Networks,
    weights: Tensor,
    data: Transitions,
    task: Task,
    z: Tensor,
    next_z: Tensor,
    draws: Draws,
) -> tuple[Tensor, ModelTerms]:
    """Latents imagined from z [B, L] by the networks, and the loss terms on them."""
    latents = imagine(networks, z, data.actions, task)
    return latents, model_terms(networks, weights, data, task, latents, next_z, draws)


def model_terms(
    networks: Networks,
    weights: Tensor,
    data: Transitions,
    task: Task,
    latents: Tensor,
    next_z: Tensor,
    draws: Draws,
    reward_rows: Tensor | None = None,
) -> ModelTerms:
    """Consistency, reward, value and, where there is a head, termination.

    Args:
        weights: rho^t [H].
        latents: imagined [H + 1, B, L].
        next_z: encoded observations 1 to H [H, B, L], without gradient.
        reward_rows: what the reward head reads, if not the rows of the dynamics [H * B, ...].
    """
    with torch.no_grad():
        targets = _td_targets(networks, data, next_z, task, draws)
    rows = networks.rows(latents[:-1], data.actions, task).flatten(0, 1)
    steps = data.actions.shape[:2]
    reward = networks.reward(rows if reward_rows is None else reward_rows).unflatten(0, steps)
    value = networks.q(rows, draws.dropout).unflatten(1, steps)
    valid, bins = data.valid, networks.bins
    parts = {
        "consistency": losses.consistency_loss(latents[1:], next_z, valid, weights),
        "reward": losses.reward_loss(reward, data.rewards, bins, valid, weights),
        "value": losses.value_loss(value, targets, bins, valid, weights),
    }
    if networks.termination is None:
        return ModelTerms(parts, None)
    logits = networks.termination(networks.state_rows(latents[1:], task)).squeeze(-1)
    parts["termination"] = losses.termination_loss(logits, data.terminated, valid)
    return ModelTerms(parts, logits)


def _td_targets(
    networks: Networks, data: Transitions, next_z: Tensor, task: Task, draws: Draws
) -> Tensor:
    state_rows = networks.state_rows(next_z, task)
    action = networks.policy_action(state_rows, task, draws.noise)
    rows = torch.cat([state_rows, action], -1).flatten(0, 1)
    value = networks.target_value(rows, draws.heads)
    return losses.td_targets(
        data.rewards, data.terminated, value.view_as(data.rewards), task.discount
    )


def policy_terms(
    networks: Networks,
    settings: tuple[float, float],
    weights: Tensor,
    latents: Tensor,
    valid: Tensor,
    task: Task,
    scale: Tensor,
    draws: Draws,
) -> PolicyTerms:
    """Paper, Eq. 4: the prior against the mean of two updated heads, scaled to order one.

    Args:
        settings: step size of the scale, and weight of the entropy.
        weights: rho^t [H + 1].
        latents: [H + 1, B, L], without gradient; `valid` [H + 1, B].
        scale: of Q, from the last update.
    """
    tau, entropy_coef = settings
    sample = networks.policy_sample(latents, task, draws.noise)
    rows = networks.rows(latents, sample.action, task)
    value = networks.policy_value(rows.flatten(0, 1), draws.heads, draws.dropout)
    value = value.view(rows.shape[:2])
    scale = running_scale(scale, value[0].detach(), tau)
    loss = losses.policy_loss(value / scale, sample.scaled_entropy, entropy_coef, valid, weights)
    return PolicyTerms(
        loss,
        sample.entropy.detach().mean(),
        sample.scaled_entropy.detach().mean(),
        scale,
    )
