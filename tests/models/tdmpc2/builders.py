"""Tiny TD-MPC2 agents and batches for tests."""

from __future__ import annotations

from typing import Any

import torch

from worldflux.core.batch import Batch
from worldflux.core.config import TDMPC2Config
from worldflux.core.learning import LearningOverrides, Phase, Scratch
from worldflux.models.tdmpc2 import TDMPC2WorldModel

SMALL: dict[str, Any] = {
    "obs_shape": (5,),
    "action_dim": 2,
    "latent_dim": 16,
    "hidden_dim": 16,
    "num_q_networks": 3,
    "num_bins": 21,
    "horizon": 3,
    "num_samples": 16,
    "num_elites": 4,
    "num_pi_trajs": 4,
    "iterations": 2,
}


def small_config(**changes: Any) -> TDMPC2Config:
    return TDMPC2Config(**{**SMALL, **changes})


def small_model(seed: int = 0, **changes: Any) -> TDMPC2WorldModel:
    """A model whose zero-initialised heads are perturbed, so that every output depends on input."""
    torch.manual_seed(seed)
    model = TDMPC2WorldModel(small_config(**changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def observation(config: TDMPC2Config, *leading: int) -> torch.Tensor:
    if config.is_image:
        return torch.randint(0, 256, (*leading, *config.obs_shape), dtype=torch.uint8)
    return torch.randn(*leading, *config.obs_shape)


def random_batch(config: TDMPC2Config, size: int = 6, length: int | None = None) -> Batch:
    rows = length or config.horizon + 1
    obs: Any = observation(config, size, rows)
    if config.num_tasks > 1:
        task = torch.arange(size) % config.num_tasks
        obs = {"obs": obs, "task": task.unsqueeze(1).expand(-1, rows)}
    return Batch(
        obs=obs,
        actions=torch.rand(size, rows, config.action_dim) * 2 - 1,
        rewards=torch.randn(size, rows),
        terminations=torch.zeros(size, rows, dtype=torch.bool),
        is_first=torch.arange(rows).eq(0).expand(size, -1),
    )


def run_updates(
    model: TDMPC2WorldModel, batch: Batch, count: int = 1, phases: list[Phase] | None = None
) -> tuple[dict[str, float], list[Phase]]:
    """Updates as the Trainer makes them.

    Returns the last losses and gradient norms by phase, and the phases, to go on with.
    """
    phases = phases or model.phases(LearningOverrides())
    numbers: dict[str, float] = {}
    for _ in range(count):
        scratch: Scratch = {}
        for phase in phases:
            phase.optimizer.zero_grad(set_to_none=True)
            output = phase.loss(batch, scratch)
            output.loss.backward()
            assert phase.grad_clip is not None
            norm = torch.nn.utils.clip_grad_norm_(phase.parameters, phase.grad_clip)
            phase.optimizer.step()
            numbers[f"loss/{phase.name}"] = output.loss.item()
            numbers[f"grad_norm/{phase.name}"] = norm.item()
        model.after_update(scratch)
    return numbers, phases
