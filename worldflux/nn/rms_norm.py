"""Root-mean-square normalisation as DreamerV3 uses it: no shift, no mean subtraction, eps 1e-4."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON = 1e-4


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2, last axis) + 1e-4) * scale, with a learned scale that starts at 1.

    Shapes: `[..., width] -> [..., width]`. The statistics are float32 whatever the input's type,
    because the mean of squares overflows or loses its small terms in 16 bits.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        normed = F.rms_norm(x.float(), (x.shape[-1],), self.scale, EPSILON)
        return normed.to(x.dtype)
