"""The optimiser of a configuration: one backward pass, one step, for either recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import LearningOverrides
from worldflux.errors import ConfigurationError
from worldflux.nn.laprop import LaProp, warmup_factor


class ClippedAdam(torch.optim.AdamW):
    """AdamW with two more keys in each group: `max_norm` and `warmup`.

    Before a step, the gradients of a group are scaled down to a common norm of `max_norm`. The
    learning rate of the n-th update is lr * min(1, (n - 1) / warmup), as in `LaProp`. This lets
    one backward pass serve several learners with their own rates and clipping thresholds.
    """

    def __init__(self, groups: list[dict[str, Any]], *, weight_decay: float = 0.0) -> None:
        super().__init__(groups, weight_decay=weight_decay)
        for group in self.param_groups:
            group.setdefault("max_norm", None)
            group.setdefault("warmup", 0)
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


class Learners:
    """Who learns: the world model, and the actor and critic where they are trained."""

    def __init__(
        self,
        model: list[nn.Parameter],
        actor: list[nn.Parameter],
        critic: list[nn.Parameter],
    ) -> None:
        self.model, self.actor, self.critic = model, actor, critic

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All of them: model, actor, critic."""
        return [*self.model, *self.actor, *self.critic]


def build_optimizer(
    config: DreamerV3Config, learners: Learners, overrides: LearningOverrides
) -> tuple[torch.optim.Optimizer, float | None]:
    """The optimiser, and the global-norm clip that the caller has to apply (None: none).

    "laprop": one learning rate for all parameters, clipped tensor by tensor; a `grad_clip` that
    the user set is a global norm before that. "adam" (or "adamw", the same with the decay that the
    user set): the documented rates and thresholds of world model, actor and critic.

    Raises:
        ConfigurationError: for another optimiser.
    """
    name = overrides.optimizer or config.optimizer
    rate = overrides.learning_rate or config.learning_rate
    decay = overrides.weight_decay or 0.0
    if name == "laprop":
        laprop = LaProp(
            learners.parameters,
            lr=rate,
            agc=config.agc_clip,
            warmup=config.lr_warmup_updates,
            weight_decay=decay,
        )
        return laprop, overrides.grad_clip
    if name not in ("adam", "adamw"):
        raise ConfigurationError(
            f"optimizer {name!r} is not allowed: DreamerV3 takes 'laprop', 'adam' or 'adamw'"
        )
    model_clip = overrides.grad_clip or config.grad_clip
    groups = [
        {"params": learners.model, "lr": rate, "eps": config.adam_eps, "max_norm": model_clip}
    ]
    for parameters, actor_rate in (
        (learners.actor, config.actor_lr),
        (learners.critic, config.critic_lr),
    ):
        if parameters:
            groups.append(
                {
                    "params": parameters,
                    "lr": actor_rate,
                    "eps": config.actor_adam_eps,
                    "max_norm": config.actor_grad_clip,
                }
            )
    for group in groups:
        group["warmup"] = config.lr_warmup_updates
    return ClippedAdam(groups, weight_decay=decay), None
