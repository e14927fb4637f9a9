"""Truncated-normal initialisation by fan-in (DreamerV3 code, "trunc_normal_in")."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# The standard deviation of a unit normal cut at +-2 is 0.8796; dividing by it makes the standard
# deviation of the *drawn* weights 1/sqrt(fan_in).
_CUT_CORRECTION = 1.1368


def trunc_normal_in_(weight: Tensor, fan_in: int, outscale: float = 1.0) -> Tensor:
    """Fill `weight` in place from a normal cut at two sigma, with std 1/sqrt(fan_in) * outscale.

    Args:
        weight: any shape; changed in place, outside autograd.
        fan_in: inputs that feed one output. A block-linear layer counts its *full* input width,
            not the width of one block.
        outscale: multiplies the standard deviation; 0.0 gives exact zeros.
    """
    if outscale == 0.0:
        with torch.no_grad():
            return weight.zero_()
    sigma = _CUT_CORRECTION * math.sqrt(1.0 / fan_in)
    with torch.no_grad():
        torch.nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma)
        return weight.mul_(outscale)
