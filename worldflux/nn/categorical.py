"""Groups of one-hot categoricals: unimix, straight-through gradients, KL and entropy."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def unimix_probs(logits: Tensor, unimix: float) -> Tensor:
    """(1 - unimix) * softmax(logits) + unimix / classes, float32: `[..., C] -> [..., C]`.

    The uniform floor keeps every class reachable and bounds the KL between two such
    distributions (DreamerV3, Nature 2025, "World model learning").
    """
    probs = F.softmax(logits.float(), -1)
    return (1 - unimix) * probs + unimix / logits.shape[-1] if unimix else probs


def uniform_noise(*groups: int, device: torch.device) -> Tensor:
    """Uniform numbers in [0, 1), `[*groups]`, for `pick`; from torch's global generator."""
    return torch.rand(groups, device=device)


def pick(probs: Tensor, noise: Tensor | None) -> Tensor:
    """A class for each group: `[..., C] -> [...]` int64; without noise the most likely one.

    `noise` `[...]` is uniform in [0, 1): the drawn class is the first whose cumulative
    probability exceeds it. One random number a group instead of one a class; as an argument,
    so that a recurrent loop draws them all in one call.
    """
    probs = probs.detach()
    if noise is None:
        return probs.argmax(-1)
    # Without the last boundary, which rounding may leave just under 1.
    return (probs.cumsum(-1)[..., :-1] <= noise.unsqueeze(-1)).sum(-1)


def one_hot(index: Tensor, classes: int) -> Tensor:
    """Float one-hot `[..., C]` of `index` `[...]`, without the range check that would wait for
    the GPU."""
    return (index.unsqueeze(-1) == torch.arange(classes, device=index.device)).float()


def straight_through(index: Tensor, probs: Tensor) -> Tensor:
    """One-hot `[..., C]` of `index` `[...]` whose gradient is that of the probabilities."""
    hard = one_hot(index, probs.shape[-1])
    return hard + (probs - probs.detach()) if probs.requires_grad else hard


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) summed over groups and classes: two `[..., S, C]` -> `[...]`, in nats."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of each group: `[..., C]` -> `[...]`, in nats."""
    return -(log_probs.exp() * log_probs).sum(-1)
