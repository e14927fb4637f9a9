"""What both families use: symlog and its inverse (DreamerV3, eq. 9; TD-MPC2), softmaxes, and the
optimisers of DreamerV3 (Nature 2025, "Optimizer"): LaProp, and an AdamW with a clipping norm for
each group."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

REGISTER = 16  # float32 numbers in the widest register of a CPU


def symlog(x: Tensor) -> Tensor:
    """`sign(x) ln(1 + |x|)`, elementwise for any shape; `symexp` is its inverse."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """`sign(x) (exp(|x|) - 1)`, elementwise for any shape; `symlog` is its inverse."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def softmax(x: Tensor) -> Tensor:
    """Softmax over the last axis: `[..., C] -> [..., C]`."""
    if _is_narrow(x):
        return x.transpose(-1, -2).softmax(-2).transpose(-1, -2)
    return x.softmax(-1)


def log_softmax(x: Tensor) -> Tensor:
    """Logarithm of the softmax over the last axis: `[..., C] -> [..., C]`."""
    if _is_narrow(x):
        return x.transpose(-1, -2).log_softmax(-2).transpose(-1, -2)
    return x.log_softmax(-1)


def _is_narrow(x: Tensor) -> bool:
    """Whether torch's kernels for the last axis would take it number by number, which costs ten
    times as much as those for any other axis."""
    on_cpu = x.device.type == "cpu" and not torch.compiler.is_compiling()
    return on_cpu and x.dim() > 1 and x.shape[-1] < REGISTER


def log_probs_at(logits: Tensor, index: Tensor) -> Tensor:
    """`log_softmax(logits)` `[..., C]` at `index` `[..., k]`: `[..., k]`."""
    if torch.compiler.is_compiling() or not logits.requires_grad:
        return log_softmax(logits).gather(-1, index)
    picked: Tensor = _LogProbsAt.apply(logits, index)
    return picked


class _LogProbsAt(torch.autograd.Function):
    """The same with a backward of two passes over the classes, torch's way five."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, index: Tensor) -> Tensor:
        log_probs = log_softmax(logits)
        ctx.save_for_backward(log_probs, index)
        return log_probs.gather(-1, index)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        log_probs, index = ctx.saved_tensors
        of_logits = log_probs.exp().mul_(-grad.sum(-1, keepdim=True))
        return of_logits.scatter_add_(-1, index, grad), None


class LaProp(torch.optim.Optimizer):
    """Clip each tensor's gradient, divide by its running RMS, then take momentum of the ratio.

    Every step works on lists of tensors (`torch._foreach_*`): no Python loop over parameters.

    In this order, for the n-th update (n = 1, 2, ...):

    1. g <- g / max(1, |g| / (agc * max(1e-3, |w|))), norms over the whole tensor
    2. v <- beta2 v + (1 - beta2) g^2,  u = g / (sqrt(v / (1 - beta2^n)) + eps)
    3. m <- beta1 m + (1 - beta1) u
    4. w <- w - lr_n m / (1 - beta1^n), where lr_n = lr * min(1, (n - 1) / warmup)

    The first update has learning rate 0 when there is a warmup. beta2 is 0.999 as in the official
    code (the paper's text says 0.99).

    Args:
        parameters: tensors or parameter groups.
        lr: learning rate after the warmup.
        agc: gradient norm allowed per unit of weight norm; 0 switches clipping off.
        warmup: updates over which the learning rate grows from 0.
        weight_decay: decoupled: w <- w * (1 - lr_n * weight_decay).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float = 4e-5,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-20,
        agc: float = 0.3,
        warmup: int = 1000,
        weight_decay: float = 0.0,
    ) -> None:
        numbers = {"lr": lr, "betas": betas, "eps": eps, "agc": agc, "warmup": warmup}
        super().__init__(parameters, {**numbers, "weight_decay": weight_decay, "updates": 0})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update_group(group)
        return loss

    def _update_group(self, group: dict[str, Any]) -> None:
        weights = [w for w in group["params"] if w.grad is not None]
        if not weights:
            return
        group["updates"] += 1
        rms, momentum = self._moments(weights)
        updates = clipped_by_weight_norm(weights, [w.grad for w in weights], group["agc"])
        beta1, beta2 = group["betas"]
        n = group["updates"]

        torch._foreach_mul_(rms, beta2)
        torch._foreach_addcmul_(rms, updates, updates, 1 - beta2)
        denominator = torch._foreach_div(rms, _bias_correction(beta2, n))
        torch._foreach_sqrt_(denominator)
        torch._foreach_add_(denominator, group["eps"])
        torch._foreach_div_(updates, denominator)

        torch._foreach_mul_(momentum, beta1)
        torch._foreach_add_(momentum, updates, alpha=1 - beta1)
        lr = group["lr"] * warmup_factor(n, group["warmup"])
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        torch._foreach_add_(weights, momentum, alpha=-lr / _bias_correction(beta1, n))

    def _moments(self, weights: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        for weight in weights:
            if not self.state[weight]:
                self.state[weight] = {
                    "rms": torch.zeros_like(weight),
                    "momentum": torch.zeros_like(weight),
                }
        states = [self.state[weight] for weight in weights]
        return [s["rms"] for s in states], [s["momentum"] for s in states]


def warmup_factor(update: int, warmup: int) -> float:
    """Share of the learning rate at the `update`-th update (from 1): 0 at the first, 1 after."""
    return min(1.0, (update - 1) / warmup) if warmup else 1.0


def clipped_by_weight_norm(
    weights: list[Tensor], gradients: list[Tensor], agc: float, floor: float = 1e-3
) -> list[Tensor]:
    """Fresh gradients of any shape, each scaled down to norm agc * max(floor, its weight's norm).

    Source: Brock et al. 2021, "High-performance large-scale image recognition without
    normalization", with norms of whole tensors instead of rows.
    """
    if not agc:
        return list(torch._foreach_mul(gradients, 1.0))
    weight_norms = torch.stack(torch._foreach_norm(weights))
    gradient_norms = torch.stack(torch._foreach_norm(gradients))
    factors = 1 / torch.clamp(gradient_norms / (agc * weight_norms.clamp(min=floor)), min=1.0)
    return list(torch._foreach_mul(gradients, list(factors.unbind())))


def _bias_correction(beta: float, updates: int) -> float:
    # In float32 like the official code: at the first updates the rounding of 1 - beta^n is a
    # visible 1e-5 of the step.
    return float(1 - np.float32(beta) ** np.float32(updates))


class ClippedAdam(torch.optim.AdamW):
    """AdamW that scales the gradients of each group down to a common norm of its `max_norm`.

    The learning rate of the n-th update is lr * min(1, (n - 1) / warmup), as in `LaProp`. So one
    backward pass serves several learners with their own rates and clipping norms.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, warmup: int = 0, weight_decay: float = 0.0
    ) -> None:
        super().__init__(groups, weight_decay=weight_decay)
        for group in self.param_groups:
            group.setdefault("max_norm", None)
            group.setdefault("warmup", warmup)
            group.setdefault("updates", 0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Clip, then one AdamW update."""
        rates = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["updates"] += 1
            if group["max_norm"] is not None:
                torch.nn.utils.clip_grad_norm_(group["params"], group["max_norm"])
            group["lr"] *= warmup_factor(group["updates"], group["warmup"])
        try:
            return super().step(closure)
        finally:
            # The learning rate itself stays what a scheduler or a checkpoint put there.
            for group, rate in zip(self.param_groups, rates, strict=True):
                group["lr"] = rate
