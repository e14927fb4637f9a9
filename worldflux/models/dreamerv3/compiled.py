"""What `training.compile` compiles of DreamerV3: acting, the recurrences and the losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from worldflux.core.compilation import CompiledFunction, Fallback

from .rssm import RSSM, CoreWeights, Latent, ObservedSteps, Posterior

# Steps of a compiled recurrence in one graph: single ones save a fifth of the uncompiled time,
# eight at a time half of it, and more take longer to compile.
PIECE = 8


def compiled(
    functions: dict[str, Callable[..., Any]], names: Iterable[str], on_fallback: Fallback
) -> dict[str, Callable[..., Any]]:
    """The model's functions, those of `names` compiled; they draw the numbers that they drew."""
    made = functions | {
        name: CompiledFunction(functions[name], on_fallback, options={"fallback_random": True})
        for name in names
    }
    return made | {"observed": in_pieces(made["observed"])}


def in_pieces(compiled: Callable[..., Posterior]) -> Callable[..., Posterior]:
    """`RSSM.observed_steps` that calls `compiled` for every PIECE steps; a rest is not compiled."""

    def recurrence(
        rssm: RSSM, steps: ObservedSteps, latent: Latent, weights: CoreWeights, of_deter: Tensor
    ) -> Posterior:
        # As if it had a gradient, as all later latents have: one graph serves for every piece.
        learns = torch.is_grad_enabled()
        latent = Latent(*(x.detach().requires_grad_(learns) for x in latent))
        parts: list[Posterior] = []
        for start in range(0, steps.kept.shape[1], PIECE):
            piece = steps.between(start, start + PIECE)
            call = compiled if piece.kept.shape[1] == PIECE else RSSM.observed_steps
            parts.append(call(rssm, piece, latent, weights, of_deter))
            latent = Latent(*(x[:, -1] for x in parts[-1].latent))
        latents = Latent(
            *(torch.cat(of_all, 1) for of_all in zip(*(p.latent for p in parts), strict=True))
        )
        return Posterior(latents, torch.cat([p.logits for p in parts], 1), None)

    return recurrence
