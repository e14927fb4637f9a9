"""What TD-MPC2 learns with: the functions in which learning and planning spend their time, as they
are or compiled, and the optimisers of its two phases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldflux.core.learning import CompiledFunction, Fallback, LearningOverrides
from worldflux.nn.laprop import LaProp

from .losses import ModelTerms, PolicyTerms, imagined_model_terms, policy_terms
from .planner import imagined_returns


@dataclass(frozen=True)
class Functions:
    """What a model calls for its plans' returns and for the terms of its two losses."""

    returns: Callable[..., Tensor] = imagined_returns
    model_terms: Callable[..., tuple[Tensor, ModelTerms]] = imagined_model_terms
    policy_terms: Callable[..., PolicyTerms] = policy_terms


def compiled_functions(device: torch.device, on_fallback: Fallback) -> Functions:
    """All of them compiled.

    On a GPU planning also runs as CUDA graphs. The losses do not: gradients accumulate over
    batches, and a graph's outputs are overwritten by its next run.
    """
    mode = "reduce-overhead" if device.type == "cuda" else None
    return Functions(
        CompiledFunction(imagined_returns, on_fallback, mode=mode),
        CompiledFunction(imagined_model_terms, on_fallback),
        CompiledFunction(policy_terms, on_fallback),
    )


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
