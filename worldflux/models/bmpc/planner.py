"""Planning in BMPC: TD-MPC2's MPPI with V at the end, and the expert Gaussian that a plan leaves to
the policy.

Legend: N environments or states, H steps, A action, L latent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from worldflux.models.tdmpc2.networks import Task
from worldflux.models.tdmpc2.planner import (
    Imagination,
    PlanStart,
    Refined,
    drawn_elite,
    refinements,
)

from .config import BMPCConfig
from .networks import BMPCNetworks


class Expert(NamedTuple):
    """What the policy imitates: mean and deviation [N, A], and the return [N] that was imagined."""

    mean: Tensor
    std: Tensor
    value: Tensor

    def columns(self) -> dict[str, Tensor]:
        """As the replay keeps them."""
        return dict(zip(EXPERT_COLUMNS, (self.mean, self.std, self.value[..., None]), strict=True))


EXPERT_COLUMNS = ("expert_mean", "expert_std", "expert_value")


@dataclass
class BMPCImagination(Imagination):
    """As TD-MPC2's; `wide` lets the policy propose with the deviation of a reanalysing plan."""

    networks: BMPCNetworks
    wide: bool = False

    def policy_action(self, state_rows: Tensor, task: Task) -> Tensor:
        """The policy's sampled action [R, A]."""
        return self.networks.policy_action(state_rows, task, wide=self.wide)

    def candidate_noise(self, shape: torch.Size, like: Tensor) -> Tensor:
        """Noise [H, N, S, A], drawn state by state as the official batched plan does."""
        horizon, num, samples, actions = shape
        drawn = torch.randn(num, horizon, samples, actions, dtype=like.dtype, device=like.device)
        return drawn.transpose(0, 1)


def expert_of(refined: Refined) -> Expert:
    """One elite's first action, drawn by weight, the last deviation of step 0, and that return.

    The first action of an elite, not the plan's mean: the authors found it to teach better.
    """
    choice = drawn_elite(refined.weights)
    rows = torch.arange(len(choice), device=choice.device)
    return Expert(refined.elites[0, rows, choice], refined.std[0], refined.returns[rows, choice])


def plan(start: PlanStart, *, explore: bool) -> tuple[Tensor, Tensor, Expert]:
    """Plan one action for each of N environments.

    Returns: as TD-MPC2's `plan` actions [N, A] in [-1, 1] and the mean [H, N, A] that starts the
    next plan; and the expert, taken before the exploration noise.
    """
    refined = _last(refinements(*start))
    expert = expert_of(refined)
    action = expert.mean
    if explore:
        action = action + expert.std * torch.randn_like(action)
    return action.clamp(-1, 1), refined.mean, expert


def reanalyse(imagination: BMPCImagination, config: BMPCConfig, z: Tensor, task: Task) -> Expert:
    """Plan states `z` [N, L] again with the current model, without a warm start, in one batch."""
    start = z.new_zeros(config.reanalyze_horizon, len(z), config.action_dim)
    expert = expert_of(_last(refinements(imagination, config, z, task, start)))
    torch.randn(config.action_dim, device=z.device)  # the official plan draws its noise here too
    return expert


def _last(steps: Iterator[Refined]) -> Refined:
    *_, refined = steps
    return refined
