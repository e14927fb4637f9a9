"""Learning the representation without a decoder: the Barlow loss of R2-Dreamer (Morihira et al.,
ICLR 2026, arXiv:2603.18202; code NM512/r2dreamer), and the projector that it learns with.

Legend: B batch, T time, n = B * T rows, F features, E tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldflux.errors import ShapeMismatchError

from .layers import trunc_normal_in_

EPSILON = 1e-8  # added to the deviation, not to the variance
# A token whose deviation is below this share of its mean is constant: what is left is rounding.
CONSTANT = 1e-6


def projector(features: int, tokens: int) -> nn.Linear:
    """The matrix that features `[..., F]` are compared with tokens `[..., E]` through; no bias."""
    layer = nn.Linear(features, tokens, bias=False)
    trunc_normal_in_(layer.weight, fan_in=features)
    return layer


class BarlowTerms(NamedTuple):
    """Both parts of the loss, and the correlations `[E, E]` (rows: projected features)."""

    invariance: Tensor
    redundancy: Tensor
    cross: Tensor


def barlow_terms(features: Tensor, tokens: Tensor, weight: Tensor) -> BarlowTerms:
    """Correlate projected features with the encoder's tokens, column by column.

        X = standardised(features P)        Y = standardised(sg(tokens))        C = X' Y / n
        invariance = sum_i (C_ii - 1)^2     redundancy = sum_{i != j} C_ij^2

    The statistics are those of all n rows of this batch. Float32 without autocast, whatever the
    precision of the networks: in 16 bits epsilon vanishes, and a constant token makes a NaN.

    Args:
        features: `[B, T, F]`, with gradients.
        tokens: `[B, T, E]`, what the posterior received; no gradient flows into them.
        weight: `[E, F]`, of the `projector`.

    Raises:
        ShapeMismatchError: for a single row, which has no deviation.
    """
    with torch.autocast(features.device.type, enabled=False):
        rows = features.float().flatten(0, -2)
        if len(rows) < 2:
            raise ShapeMismatchError(
                "the Barlow loss correlates the steps of a batch, and this batch has 1 step",
                hint="raise training.batch_size or training.sequence_length",
            )
        projected = rows @ weight.float().t()
        targets = _standardised_tokens(tokens.detach().float().flatten(0, -2))
        cross = _standardised(projected).t() @ targets / len(rows)
        on_diagonal = torch.eye(len(cross), dtype=torch.bool, device=cross.device)
        invariance = (cross.diagonal() - 1).square().sum()
        redundancy = cross.masked_fill(on_diagonal, 0.0).square().sum()
    return BarlowTerms(invariance, redundancy, cross)


def barlow_loss(features: Tensor, tokens: Tensor, weight: Tensor, lambda_: float) -> Tensor:
    """`invariance + lambda redundancy`: a scalar, sums over columns; see `barlow_terms`."""
    terms = barlow_terms(features, tokens, weight)
    return terms.invariance + lambda_ * terms.redundancy


def _standardised(columns: Tensor) -> Tensor:
    return (columns - columns.mean(0)) / (columns.std(0) + EPSILON)


def _standardised_tokens(columns: Tensor) -> Tensor:
    """Constant columns as exactly 0, also where their mean is rounded."""
    constant = columns.std(0) < CONSTANT * columns.mean(0).abs()
    return _standardised(columns).masked_fill(constant, 0.0)
