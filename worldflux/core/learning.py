"""How a family tells the Trainer what to do: an ordered, short list of losses and optimisers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .batch import Batch
from .outputs import LossOutput

Scratch = dict[str, Tensor]
"""Values that one phase of an update hands to a later one, or to `after_update`."""

Carry = dict[str, Tensor]
"""Acting memory of N environments, leading axis N; plain tensors, so that it can be saved."""


@dataclass(frozen=True)
class LearningOverrides:
    """What the user set explicitly; None means the family's own recipe."""

    learning_rate: float | None = None
    grad_clip: float | None = None
    weight_decay: float | None = None
    optimizer: str | None = None


@dataclass
class Phase:
    """One backward pass and one optimiser step.

    `grad_clip` is a global norm over `parameters`; None where the optimiser clips by itself.
    """

    name: str
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    grad_clip: float | None
    loss: Callable[[Batch, Scratch], LossOutput]
