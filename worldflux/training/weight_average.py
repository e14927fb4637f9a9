"""An exponential moving average of the weights, used to evaluate (`TrainingConfig.ema_decay`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """`average <- decay * average + (1 - decay) * weights` after every update."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.tensors = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's weights."""
        averages = [self.tensors[name] for name, _ in model.named_parameters()]
        weights = [parameter.detach() for parameter in model.parameters()]
        torch._foreach_lerp_(averages, weights, 1.0 - self.decay)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within the block the model holds the average; its own weights come back after."""
        own = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._copy(model, self.tensors)
        try:
            yield
        finally:
            self._copy(model, own)

    @staticmethod
    @torch.no_grad()
    def _copy(model: nn.Module, values: dict[str, Tensor]) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
