"""Optimisers of TD-MPC2's two phases, with what the user chose instead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from worldflux.core.learning import LearningOverrides
from worldflux.nn.laprop import LaProp


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate."""

    parameters: list[nn.Parameter]
    learning_rate: float


def build_optimizer(
    groups: list[ParameterGroup], overrides: LearningOverrides, *, eps: float = 1e-8
) -> torch.optim.Optimizer:
    """Adam (betas 0.9 and 0.999), or the optimiser that the user named.

    `overrides.learning_rate` is already in the groups; `weight_decay` is L2 for Adam and decoupled
    for AdamW and LaProp.
    """
    named = [{"params": g.parameters, "lr": g.learning_rate} for g in groups]
    decay = overrides.weight_decay or 0.0
    if overrides.optimizer == "laprop":
        return LaProp(named, warmup=0, weight_decay=decay)  # type: ignore[arg-type]
    # One kernel for all tensors where the device has it.
    fused = groups[0].parameters[0].device.type in ("cpu", "cuda") or None
    kind = torch.optim.AdamW if overrides.optimizer == "adamw" else torch.optim.Adam
    return kind(named, eps=eps, weight_decay=decay, fused=fused)
