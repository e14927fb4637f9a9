"""The optimiser of a configuration: one backward pass, one step, for either recipe."""

from __future__ import annotations

import torch
from torch import nn

from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import LearningOverrides
from worldflux.errors import ConfigurationError
from worldflux.models.dreamerv3.optim import ClippedAdam
from worldflux.nn.laprop import LaProp


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
