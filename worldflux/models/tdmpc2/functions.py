"""The functions in which planning and learning spend their time, as they are or compiled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from worldflux.core.compiled import CompiledFunction, Fallback

from .imagination import imagined_returns
from .objectives import ModelTerms, PolicyTerms, imagined_model_terms, policy_terms


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
