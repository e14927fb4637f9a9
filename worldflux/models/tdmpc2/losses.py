"""The losses of TD-MPC2 (paper, Eq. 3-4), from a batch to the two objectives of an update.

The objectives draw nothing and change nothing, so that they give the same numbers eagerly and
compiled; the model draws the random numbers first (`Draws`), in the official order.

Legend: H horizon, B batch, N heads, K bins, L latent, A action, M hidden width. `weights` are
rho^t [H] (or [H + 1]).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.learning import LearningOverrides, Scratch
from worldflux.errors import ShapeMismatchError
from worldflux.nn import LaProp

from .config import TDMPC2Config
from .layers import Heads
from .maths import gaussian_log_prob, running_scale, squash_correction, two_hot_cross_entropy
from .networks import Networks, Task, TaskTable

_MOST_IMITATED = 0.999  # of an action in [-1, 1]


@dataclass(frozen=True)
class Transitions:
    """H consecutive transitions of B sequences; rewards and ends are those of the action at t.

    `obs` [H + 1, B, ...], `actions` [H, B, A], `rewards`, `terminated` and `valid` [H, B] floats,
    `task` [B] or None. `valid` is 0 from the first step on that would cross into another episode.
    """

    obs: Tensor
    actions: Tensor
    rewards: Tensor
    terminated: Tensor
    valid: Tensor
    task: Tensor | None

    def valid_states(self) -> Tensor:
        """Validity of the states z_0..z_H [H + 1, B], of which the first is always real."""
        return torch.cat([torch.ones_like(self.valid[:1]), self.valid])


def transitions(batch: Batch, obs: Tensor, task: Tensor | None, horizon: int) -> Transitions:
    """The first `horizon` transitions of a batch [B, T, ...]; further rows are not used.

    Raises ShapeMismatchError when the sequences are shorter than horizon + 1 rows.
    """
    rows = horizon + 1
    if batch.length < rows:
        raise ShapeMismatchError(
            f"horizon {horizon} needs sequences of {rows} rows, not {batch.length}",
            hint=f"set training.sequence_length = {rows}, or leave it out",
        )
    crossed = batch.firsts[:, 1:rows].transpose(0, 1).float().cumsum(0)
    return Transitions(
        obs=obs[:, :rows].transpose(0, 1),
        actions=batch.actions[:, :horizon].transpose(0, 1).float(),
        rewards=batch.rewards[:, 1:rows].transpose(0, 1).float(),
        terminated=batch.terminations[:, 1:rows].transpose(0, 1).float(),
        valid=(crossed == 0).float(),
        task=None if task is None else task[:, 0].long(),
    )


def weighted_steps(per_entry: Tensor, valid: Tensor, weights: Tensor) -> Tensor:
    """`1/H sum_t weights_t mean_B(per_entry)`: [..., H, B] -> [...]."""
    return ((per_entry * valid).mean(-1) * weights).mean(-1)


def termination_statistics(logits: Tensor, terminated: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Rate of true ends [] and F1 score [] of predicted ones at probability 0.5; inputs [B]."""
    predicted = (torch.sigmoid(logits) > 0.5) & (valid > 0)
    actual = (terminated > 0.5) & (valid > 0)
    hits = (predicted & actual).sum().float()
    recall, precision = hits / (actual.sum() + 1e-9), hits / (predicted.sum() + 1e-9)
    f1 = 2 * precision * recall / (precision + recall + 1e-9)
    rate = actual.sum() / valid.sum().clamp(min=1)
    return {"termination_rate": rate, "termination_f1": f1}


@dataclass(frozen=True)
class Draws:
    """Random numbers of one objective over T steps: policy noise [T, B, A], the two Q heads (None:
    all) and the dropout of all heads [N, T * B, M] (None: no dropout).
    """

    noise: Tensor
    heads: Heads | None
    dropout: Tensor | None


@dataclass(frozen=True)
class ModelTerms:
    """The imagined latents [H + 1, B, L], the loss terms by name, unscaled, and the termination
    logits [H, B] where there is a head."""

    latents: Tensor
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


def td_targets(
    networks: Networks, data: Transitions, next_z: Tensor, task: Task, draws: Draws
) -> Tensor:
    """`r + discount (1 - terminated) Q(n, a')` [H, B], the lower of two target heads."""
    state_rows = networks.state_rows(next_z, task)
    action = networks.policy_action(state_rows, task, draws.noise)
    rows = torch.cat([state_rows, action], -1).flatten(0, 1)
    value = networks.target_value(rows, draws.heads).view_as(data.rewards)
    return data.rewards + task.discount * (1 - data.terminated) * value


def model_terms(
    networks: Networks,
    weights: Tensor,
    data: Transitions,
    task: Task,
    z: Tensor,
    next_z: Tensor,
    draws: Draws,
    latents: Tensor | None = None,
    reward_rows: Tensor | None = None,
    targets: Tensor | None = None,
) -> ModelTerms:
    """Paper, Eq. 3: consistency, reward, value and, where there is a head, termination.

    Args:
        weights: rho^t [H].
        z: the first encoded observation [B, L]; next_z: 1 to H [H, B, L], without gradient.
        latents: [H + 1, B, L], where replaced parts imagined them.
        reward_rows: what the reward head reads [H * B, ...], if not the rows of the dynamics.
        targets: of the values [H, B], if not `td_targets`.
    """
    if latents is None:
        latents = imagine(networks, z, data.actions, task)
    if targets is None:
        with torch.no_grad():
            targets = td_targets(networks, data, next_z, task, draws)
    rows = networks.rows(latents[:-1], data.actions, task).flatten(0, 1)
    steps, valid = data.actions.shape[:2], data.valid
    reward = networks.reward(rows if reward_rows is None else reward_rows).unflatten(0, steps)
    value = networks.q(networks.value_rows(rows), draws.dropout).unflatten(1, steps)
    distance = (latents[1:].float() - next_z.float()).square().mean(-1)
    reward_entropy = two_hot_cross_entropy(reward, data.rewards, networks.bins)
    value_entropy = two_hot_cross_entropy(value, targets, networks.bins)  # of every head
    parts = {
        "consistency": weighted_steps(distance, valid, weights),
        "reward": weighted_steps(reward_entropy, valid, weights),
        "value": weighted_steps(value_entropy, valid, weights).mean(),
    }
    if networks.termination is None:
        return ModelTerms(latents, parts, None)
    logits = networks.termination(networks.state_rows(latents[1:], task)).squeeze(-1)
    entropy = F.binary_cross_entropy_with_logits(logits.float(), data.terminated, reduction="none")
    parts["termination"] = (entropy * valid).mean()  # not weighted by rho
    return ModelTerms(latents, parts, logits)


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

    `-(entropy_coef * entropy + Q / scale)` over the H + 1 states of `latents` [H + 1, B, L], which
    carry no gradient. `settings` are the step size of the scale and the weight of the entropy;
    `scale` [] is that of the last update.
    """
    tau, entropy_coef = settings
    sample = networks.policy_sample(latents, task, draws.noise)
    rows = networks.rows(latents, sample.action, task)
    value = networks.policy_value(rows.flatten(0, 1), draws.heads, draws.dropout)
    value = value.view(rows.shape[:2])
    scale = running_scale(scale, value[0].detach(), tau)
    loss = weighted_steps(-(entropy_coef * sample.scaled_entropy + value / scale), valid, weights)
    entropies = sample.entropy.detach().mean(), sample.scaled_entropy.detach().mean()
    return PolicyTerms(loss, *entropies, scale)


def imitation_loss(
    networks: Networks,
    weights: Tensor,
    latents: Tensor,
    task: Task,
    demonstrated: Tensor,
    w: Tensor,
) -> Tensor:
    """`-w log pi(a)` of the demonstrated actions [H, B, A], weighted over time as the policy loss.

    Args:
        weights: rho^t [H]; w: weight of imitating each action [H, B].
        latents: z_0 to z_(H - 1) [H, B, L], without gradient.
    """
    mean, log_std = networks.policy_params(networks.state_rows(latents, task), task)
    # Bounds are at infinity before tanh.
    action = demonstrated.clamp(-_MOST_IMITATED, _MOST_IMITATED)
    eps = (torch.atanh(action) - mean) / log_std.exp()
    if task.action_mask is not None:
        eps = eps * task.action_mask
    log_prob = gaussian_log_prob(eps, log_std) - squash_correction(action)
    return weighted_steps(-log_prob, w, weights)


def coefficients(config: TDMPC2Config) -> dict[str, float]:
    """The weight of each term in the model loss."""
    return {
        "consistency": config.consistency_coef,
        "reward": config.reward_coef,
        "value": config.value_coef,
        "termination": config.termination_coef,
        "reconstruction": config.reconstruction_coef,
    }


def leave_latents(scratch: Scratch, latents: Tensor, data: Transitions) -> None:
    """Leave in `scratch` what the policy phase learns from."""
    scratch["latents"] = latents.detach()
    scratch["valid"] = data.valid_states()
    if data.task is not None:
        scratch["task"] = data.task


def optimizer_of(
    groups: list[dict[str, Any]], overrides: LearningOverrides, eps: float = 1e-8
) -> torch.optim.Optimizer:
    """Adam (betas 0.9 and 0.999), or the optimiser that the user named.

    `weight_decay` is L2 for Adam and decoupled for AdamW and LaProp.
    """
    decay = overrides.weight_decay or 0.0
    if overrides.optimizer == "laprop":
        return LaProp(groups, warmup=0, weight_decay=decay)  # type: ignore[arg-type]
    # One kernel for all tensors where the device has it.
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda") or None
    kind = torch.optim.AdamW if overrides.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, eps=eps, weight_decay=decay, fused=fused)


def policy_embedding(
    tasks: TaskTable | None, config: TDMPC2Config, scratch: Scratch
) -> Tensor | None:
    """The task embedding [K, E] as the policy loss sees it: constant, or leaking its gradient."""
    if tasks is None:
        return None
    weight = tasks.embedding.detach()
    if not config.leak_task_grad:
        return weight
    gradient = scratch["task_gradient"] = torch.zeros_like(weight)

    def leak(grad: Tensor) -> None:
        gradient.copy_(grad)

    weight.requires_grad_().register_hook(leak)
    return weight


def leaked_gradient(tasks: TaskTable | None, config: TDMPC2Config) -> Tensor | float:
    """A term of value 0 whose gradient is that of the last policy loss."""
    if tasks is None or not config.leak_task_grad:
        return 0.0
    term = (tasks.leaked_grad * tasks.embedding).sum()
    return term - term.detach()
