"""Mish and SimNorm, written for few kernels on a CPU.

torch's CPU mish evaluates three transcendental functions, and its softmax over eight entries is
several times slower than the arithmetic it does; in small networks these two cost more than the
matrix products. Here Mish takes one exponential and SimNorm four plain kernels. Accelerators and
compiled code have fused kernels already and use those.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# tanh(softplus(x)) is 1 in float32 and float64 beyond this, and exp(x)^4 still fits float32.
_MISH_SATURATES = 20.0
# Below so many numbers torch's one kernel costs less than starting several of ours.
_FEW_FOR_MISH = 2048
_FEW_FOR_SIMNORM = 512


def mish(x: Tensor) -> Tensor:
    """`x tanh(ln(1 + e^x))`, elementwise for any shape (Misra 2019)."""
    if x.device.type == "cpu" and torch.compiler.is_compiling():
        e = torch.exp(x.clamp(max=_MISH_SATURATES))  # as below; the compiler makes it one kernel
        return x - x / (1 + e + 0.5 * e * e)
    if x.device.type != "cpu" or x.numel() < _FEW_FOR_MISH:
        return F.mish(x)
    if torch.is_grad_enabled() and x.requires_grad:
        return _MishOneExp.apply(x)
    e = torch.exp(x)
    # tanh(softplus(x)) = 1 - 1/d with d = 1 + e + e^2/2; e = inf gives 1/d = 0, which is right.
    return torch.addcdiv(x, x, e.addcmul_(e, e, value=0.5).add_(1), value=-1)


class _MishOneExp(torch.autograd.Function):
    """Mish whose derivative comes from the forward pass's exponential."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        e = x.clamp(max=_MISH_SATURATES).exp_()
        r = torch.addcmul(e, e, e, value=0.5).add_(1).reciprocal_()
        y = torch.addcmul(x, x, r, value=-1)
        # y' = 1 - r + x (e + e^2) r^2, with r = 1/d
        er = e.mul_(r)
        slope = (er + r).mul_(er).mul_(x).sub_(r).add_(1)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * slope


def simnorm(x: Tensor, group: int) -> Tensor:
    """Softmax within consecutive groups of the last axis (TD-MPC2, Eq. 5, temperature 1).

    Args:
        x: [..., L] with L a multiple of `group`.
        group: entries that share one simplex (V).

    Returns:
        [..., L]; every group is non-negative and sums to 1.
    """
    grouped = x.unflatten(-1, (-1, group))
    if x.device.type != "cpu" or x.numel() < _FEW_FOR_SIMNORM or torch.compiler.is_compiling():
        return torch.softmax(grouped, dim=-1).flatten(-2)
    if torch.is_grad_enabled() and x.requires_grad:
        return _GroupSoftmax.apply(grouped).flatten(-2)
    return _group_softmax(grouped).flatten(-2)


def _group_softmax(x: Tensor) -> Tensor:
    e = (x - x.amax(-1, keepdim=True)).exp_()
    return e.div_(e.sum(-1, keepdim=True))


class _GroupSoftmax(torch.autograd.Function):
    """Softmax over a short last axis."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        y = _group_softmax(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]
        weighted = grad * y
        return weighted.addcmul_(y, weighted.sum(-1, keepdim=True), value=-1)
