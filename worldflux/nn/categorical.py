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


def exponential_noise(like: Tensor) -> Tensor:
    """Unit exponential noise in the shape of `like`, for `pick`; from torch's global generator."""
    return torch.empty_like(like, dtype=torch.float32, requires_grad=False).exponential_()


def pick(probs: Tensor, noise: Tensor | None) -> Tensor:
    """A class for each group: `[..., C] -> [...]` int64; without noise the most likely one.

    argmax(p / e) with unit exponential e draws from p (the exponential race, another form of the
    Gumbel-max trick). Taking the noise as an argument lets a recurrent loop draw it in one call.
    """
    probs = probs.detach()
    return (probs if noise is None else probs / noise).argmax(-1)


def straight_through(index: Tensor, probs: Tensor) -> Tensor:
    """One-hot `[..., C]` of `index` `[...]` whose gradient is that of the probabilities."""
    one_hot = F.one_hot(index, probs.shape[-1]).to(probs.dtype)
    return one_hot + (probs - probs.detach())


def kl_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q) summed over groups and classes: two `[..., S, C]` -> `[...]`, in nats."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def entropy(log_probs: Tensor) -> Tensor:
    """Entropy of each group: `[..., C]` -> `[...]`, in nats."""
    return -(log_probs.exp() * log_probs).sum(-1)
