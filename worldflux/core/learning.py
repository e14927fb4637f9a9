"""How a family learns: its losses and optimisers in order."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from worldflux.errors import ConfigurationError

from .batch import Batch
from .config import TrainingRecipe
from .outputs import LossOutput

Scratch = dict[str, Tensor]
"""Values that one phase of an update hands to a later one, or to `after_update`."""

Carry = dict[str, Tensor]
"""Acting memory of N environments, leading axis N; plain tensors, so that it can be saved."""

Policy = Callable[..., tuple[Tensor, Carry]]
"""A way to act, called as `WorldModel.policy`."""


def learned_count(model: nn.Module) -> int:
    """Learnable parameters of a model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes that tensors take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def set_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators (every device)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


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
    `pretrains` says whether it takes part in the updates before the agent acts for the first time.
    """

    name: str
    optimizer: torch.optim.Optimizer
    parameters: list[nn.Parameter]
    grad_clip: float | None
    loss: Callable[[Batch, Scratch], LossOutput]
    pretrains: bool = True


def single_phase(
    model: str,
    parameters: list[nn.Parameter],
    loss: Callable[[Batch, Scratch], LossOutput],
    recipe: TrainingRecipe,
    overrides: LearningOverrides,
) -> Phase:
    """One loss over all parameters: Adam (or AdamW) with the recipe's rate and clip, unless set."""
    if not parameters:
        raise ConfigurationError(f"{model} has no parameters to train")
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    name = overrides.optimizer or "adam"
    if name not in kinds:
        raise ConfigurationError(
            f"optimizer {name!r} is not allowed: {model} takes {' or '.join(map(repr, kinds))}"
        )
    optimizer = kinds[name](
        parameters,
        lr=overrides.learning_rate or recipe.learning_rate,
        weight_decay=overrides.weight_decay or 0.0,
    )
    return Phase("model", optimizer, parameters, overrides.grad_clip or recipe.grad_clip, loss)
