"""Mixed precision: the type that networks compute in, and the loss scaling that float16 needs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from worldflux.errors import NonFiniteError


def compute_dtype(
    mixed_precision: bool, model_dtype: str, device: torch.device
) -> torch.dtype | None:
    """The type to compute in, or None for float32 throughout.

    The model's own `dtype` decides where it is not "float32". Otherwise mixed precision means
    bfloat16, or float16 on a GPU that has no bfloat16 units.
    """
    if model_dtype != "float32":
        return {"bfloat16": torch.bfloat16, "float16": torch.float16}[model_dtype]
    if not mixed_precision:
        return None
    lacks_bfloat16 = device.type == "cuda" and not torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return torch.float16 if lacks_bfloat16 else torch.bfloat16


class Precision:
    """Autocast to `dtype`; float16 gradients are scaled, and steps that overflow are skipped.

    Weights and optimisers stay in float32. A skipped step halves the scale; when gradients
    overflow although the scale is down to 1, it is not the scale that is wrong.
    """

    def __init__(self, dtype: torch.dtype | None, device: torch.device) -> None:
        self.dtype = dtype
        self.device = device
        scaled = dtype is torch.float16
        self.scaler = torch.amp.GradScaler(device.type) if scaled else None

    def autocast(self) -> torch.autocast:
        """The context in which a loss is computed."""
        return torch.autocast(
            self.device.type, self.dtype or torch.bfloat16, enabled=self.dtype is not None
        )

    def backward(self, loss: Tensor) -> None:
        """Gradients of a scalar loss, scaled in float16."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Give the gradients their true size, before they are clipped and measured."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer, name: str, norm: float) -> bool:
        """Step, or skip the step where scaled gradients overflowed; returns whether it stepped.

        Raises:
            NonFiniteError: when the gradients of `name` are not finite and no scale is to blame.
        """
        if math.isfinite(norm):
            if self.scaler is None:
                optimizer.step()
            else:
                self.scaler.step(optimizer)
            return True
        if self.scaler is None or self.scaler.get_scale() <= 1.0:
            raise NonFiniteError(
                f"grad_norm/{name} became {norm}; the weights are as before this update",
                hint="lower training.learning_rate or training.grad_clip, then: "
                "worldflux train --resume",
            )
        return False

    def finish(self) -> dict[str, float]:
        """After every phase of an update: adapt the scale; returns it as a metric."""
        if self.scaler is None:
            return {}
        self.scaler.update()
        return {"loss_scale": float(self.scaler.get_scale())}

    def state_dict(self) -> dict[str, Any]:
        """The scale and its counter as plain numbers."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`; nothing to do where one side scales nothing."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
