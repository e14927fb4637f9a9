"""Model predictive path integral planning (TD-MPC2, section 3.2).

Legend: N environments, S candidate sequences of H actions, E elites, M policy sequences among the
candidates, A action, L latent. Tensors run [H, N, S, A], so that one step of all candidates is
contiguous. For N = 1 the random numbers are drawn in exactly the official order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from worldflux.core.config import TDMPC2Config

from .networks import Task


class LatentModel(Protocol):
    """What the planner asks of a world model; rows are candidates of all environments in turn."""

    def policy_actions(self, z: Tensor, task: Task, horizon: int) -> Tensor:
        """`horizon` sampled policy actions from z [R, L] through the dynamics: [H, R, A]."""
        ...

    def returns(self, z: Tensor, actions: Tensor, task: Task) -> Tensor:
        """Discounted return [R] of actions [H, R, A], with a value at the end.

        `z` is [N, L] and `task` of N rows; R/N consecutive rows start from each environment.
        """
        ...


@dataclass(frozen=True)
class PlannerSettings:
    """The planner's numbers, named as in the configuration."""

    horizon: int
    num_samples: int
    num_elites: int
    num_pi_trajs: int
    iterations: int
    temperature: float
    momentum: float
    min_std: float
    max_std: float

    @classmethod
    def of(cls, config: TDMPC2Config) -> PlannerSettings:
        """The settings that a configuration holds."""
        return cls(
            horizon=config.horizon,
            num_samples=config.num_samples,
            num_elites=config.num_elites,
            num_pi_trajs=config.effective_pi_trajs,
            iterations=config.effective_iterations,
            temperature=config.temperature,
            momentum=config.momentum,
            min_std=config.min_std,
            max_std=config.max_std,
        )


def plan(
    model: LatentModel,
    settings: PlannerSettings,
    z: Tensor,
    task: Task,
    warm_start: Tensor,
    *,
    explore: bool,
) -> tuple[Tensor, Tensor]:
    """Plan one action for each environment.

    Args:
        model: predicts returns of candidate sequences.
        settings: the planner's numbers.
        z: latents [N, L].
        task: of each environment.
        warm_start: mean of the previous plan, shifted by one step: [H, N, A].
        explore: add the plan's noise to the action. Without it the planner still draws the elite
            at random, as the official evaluation does.

    Returns:
        Actions [N, A] in [-1, 1], and the mean [H, N, A] that starts the next plan.
    """
    num, samples, num_pi = z.shape[0], settings.num_samples, settings.num_pi_trajs
    horizon, action_dim = settings.horizon, warm_start.shape[-1]
    mask = task.action_mask
    candidates = warm_start.new_empty(horizon, num, samples, action_dim)
    if num_pi:
        drawn = model.policy_actions(z.repeat_interleave(num_pi, 0), task.repeated(num_pi), horizon)
        candidates[:, :, :num_pi] = drawn.view(horizon, num, num_pi, action_dim)

    mean = warm_start
    std = torch.full_like(mean, settings.max_std)
    for _ in range(settings.iterations):
        _draw_candidates(candidates[:, :, num_pi:], mean, std)
        if mask is not None:
            candidates.mul_(mask.unsqueeze(1))
        flat = candidates.view(horizon, num * samples, action_dim)
        # The algorithm counts an undefined return as 0 (official code), not as an error.
        values = torch.nan_to_num(model.returns(z, flat, task), nan=0.0)
        elites, weights = _elites(candidates, values.view(num, samples), settings)
        mean, std = _refit(elites, weights, mean, settings)
        if mask is not None:
            mean, std = mean * mask, std * mask
    action = _drawn_elite(elites, weights)
    if explore:
        action = action + std[0] * torch.randn_like(action)
    return action.clamp(-1, 1), mean


def _draw_candidates(out: Tensor, mean: Tensor, std: Tensor) -> None:
    noise = torch.randn(out.shape, dtype=out.dtype, device=out.device)
    noise.mul_(std.unsqueeze(2)).add_(mean.unsqueeze(2)).clamp_(-1, 1)
    out.copy_(noise)


def _elites(candidates: Tensor, values: Tensor, settings: PlannerSettings) -> tuple[Tensor, Tensor]:
    """The best sequences [H, N, E, A] by value [N, S], and their weights [N, E] summing to 1."""
    horizon, num, samples, action_dim = candidates.shape
    best, index = torch.topk(values, settings.num_elites, dim=1)
    weights = torch.exp(settings.temperature * (best - best.amax(1, keepdim=True)))
    weights = weights / weights.sum(1, keepdim=True)
    offsets = torch.arange(num, device=index.device).unsqueeze(1) * samples
    flat = candidates.view(horizon, num * samples, action_dim)
    elites = flat.index_select(1, (index + offsets).flatten())
    return elites.view(horizon, num, settings.num_elites, action_dim), weights


def _refit(
    elites: Tensor, weights: Tensor, previous: Tensor, settings: PlannerSettings
) -> tuple[Tensor, Tensor]:
    """Weighted mean and standard deviation [H, N, A] of the elites.

    Momentum (TD-MPC, Hansen et al. 2022) mixes the previous mean in after the deviation is taken.
    """
    scale = weights.unsqueeze(-1)
    total = scale.sum(1) + 1e-9
    mean = (scale * elites).sum(2) / total
    variance = (scale * (elites - mean.unsqueeze(2)).square()).sum(2) / total
    std = variance.sqrt().clamp(settings.min_std, settings.max_std)
    if settings.momentum > 0:
        mean = settings.momentum * previous + (1 - settings.momentum) * mean
    return mean, std


def _drawn_elite(elites: Tensor, weights: Tensor) -> Tensor:
    """First action [N, A] of one elite a row, drawn with probability `weights` (Gumbel-max)."""
    gumbel = -torch.empty_like(weights).exponential_().log()
    choice = (weights.log() + gumbel).argmax(-1)
    return elites[0, torch.arange(len(choice), device=choice.device), choice]
