"""Squashing of scalars of unknown magnitude (DreamerV3, Hafner et al. 2025, Eq. 9; TD-MPC2)."""

from __future__ import annotations

import torch
from torch import Tensor


def symlog(x: Tensor) -> Tensor:
    """`sign(x) ln(1 + |x|)`, elementwise; `symexp` is its inverse."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """`sign(x) (exp(|x|) - 1)`, elementwise; `symlog` is its inverse."""
    return torch.sign(x) * torch.expm1(torch.abs(x))
