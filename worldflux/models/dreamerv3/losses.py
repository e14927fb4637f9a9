"""World-model losses of DreamerV3 (Nature 2025, eq. 2-3), pure functions over `[B, T, ...]`."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from worldflux.models.dreamerv3.maths import MeanSquared, kl_divergence
from worldflux.models.dreamerv3.spaces import ObservationKey, unit_image
from worldflux.nn.scalars import symlog


def kl_losses(log_q: Tensor, log_p: Tensor, free: float) -> tuple[Tensor, Tensor]:
    """Dynamics and representation loss `[...]` from log-probabilities `[..., S, C]`.

    dyn = max(free, KL(sg(q) | p)), rep = max(free, KL(q | sg(p))). The floor applies to the sum
    over all groups; below it there is no gradient.
    """
    dynamics = kl_divergence(log_q.detach(), log_p).clamp(min=free)
    representation = kl_divergence(log_q, log_p.detach()).clamp(min=free)
    return dynamics, representation


def reconstruction_loss(
    raw: Mapping[str, Tensor],
    observations: Mapping[str, Tensor],
    keys: tuple[ObservationKey, ...],
    use_symlog: bool,
) -> dict[str, Tensor]:
    """One loss `[...]` for each key, summed over the key's own axes.

    Images: squared error in [0, 1]; vectors: squared error in symlog space; discrete keys: cross
    entropy. No factor 1/2, no mean over pixels.
    """
    losses = {}
    for key in keys:
        target, prediction = observations[key.name], raw[key.name].float()
        axes = tuple(range(-len(key.shape), 0))
        if key.kind == "image":
            error = (prediction - unit_image(target)).square()
        elif key.kind == "discrete":
            known = target >= 0
            index = target.long().clamp(min=0).unsqueeze(-1)
            picked = F.log_softmax(prediction, -1).gather(-1, index).squeeze(-1)
            error = -picked * known
        else:
            (error,) = MeanSquared(prediction, use_symlog).loss(target)
        losses[key.name] = error.sum(axes)
    return losses


def prediction_losses(
    predictions: Mapping[str, Tensor],
    names: Mapping[str, ObservationKey],
    observations: Mapping[str, Tensor],
    reward: Tensor,
    continues: Tensor,
    use_symlog: bool,
) -> dict[str, Tensor]:
    """Losses `[...]` of a replaced decoder, from its predictions alone; what it lacks is left out.

    Args:
        names: prediction name -> observation key.
        continues: target of the "continue" probability.
    """
    losses = {}
    present = {name: key for name, key in names.items() if name in predictions}
    if present:
        raw = {key.name: _raw(predictions[n], key, use_symlog) for n, key in present.items()}
        parts = reconstruction_loss(raw, observations, tuple(present.values()), use_symlog)
        losses["reconstruction"] = torch.stack(list(parts.values())).sum(0)
    if "reward" in predictions:
        losses["reward"] = (symlog(predictions["reward"]) - symlog(reward)).square()
    if "continue" in predictions:
        # Keeps log(0) out: a replaced decoder may answer exactly 0 or 1.
        probability = predictions["continue"].clamp(1e-6, 1 - 1e-6)
        losses["continue"] = F.binary_cross_entropy(probability, continues, reduction="none")
    return losses


def _raw(prediction: Tensor, key: ObservationKey, use_symlog: bool) -> Tensor:
    if key.kind == "discrete":
        return prediction.clamp(min=1e-6).log()
    return symlog(prediction) if key.kind == "vector" and use_symlog else prediction
