"""The backward passes and optimisers of one update."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from worldflux.core.batch import Batch
from worldflux.core.learning import LearningOverrides, Phase, Scratch
from worldflux.core.outputs import LossOutput
from worldflux.errors import ConfigurationError
from worldflux.nn import ClippedAdam, LaProp

from .config import DreamerV3Config

if TYPE_CHECKING:
    from .world_model import DreamerV3WorldModel

Groups = list[dict[str, Any]]
Loss = Callable[[Batch, Scratch], LossOutput]


def phases_of(model: DreamerV3WorldModel, overrides: LearningOverrides) -> list[Phase]:
    """One phase of world model, actor and critic, and one of a probe decoder where there is one.

    The probe has a separate optimiser and gradient norm, and changes no other weight.
    """
    config = model.config
    actor, critic = list(model.actor.parameters()), list(model.critic.parameters())
    probe = list(model.decoder.parameters()) if model.decoder and config.probe_decoder else []
    apart = {id(parameter) for parameter in (*actor, *critic, *probe)}
    world = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
    groups: Groups = [{"params": world}]
    if config.actor_critic:
        same = {"eps": config.actor_adam_eps, "max_norm": config.actor_grad_clip}
        groups.append({"params": actor, "lr": config.actor_lr, **same})
        groups.append({"params": critic, "lr": config.critic_lr, **same})
    phases = [_phase("model", config, groups, model.first_loss, overrides)]
    if probe:
        alone: Groups = [{"params": probe}]
        phases.append(_phase("probe_decoder", config, alone, model.probe_loss, overrides))
    return phases


def _phase(
    name: str, config: DreamerV3Config, groups: Groups, loss: Loss, overrides: LearningOverrides
) -> Phase:
    """One optimiser of parameter groups; what a group does not set is the world model's."""
    kind = overrides.optimizer or config.optimizer
    if kind not in ("laprop", "adam", "adamw"):
        raise ConfigurationError(
            f"optimizer {kind!r} is not allowed: DreamerV3 takes 'laprop', 'adam' or 'adamw'"
        )
    learned = [parameter for group in groups for parameter in group["params"]]
    rate = overrides.learning_rate or config.learning_rate
    decay, warmup = overrides.weight_decay or 0.0, config.lr_warmup_updates
    if kind == "laprop":
        laprop = LaProp(learned, rate, agc=config.agc_clip, warmup=warmup, weight_decay=decay)
        return Phase(name, laprop, learned, overrides.grad_clip, loss)
    same = {
        "lr": rate,
        "eps": config.adam_eps,
        "max_norm": overrides.grad_clip or config.grad_clip,
    }
    adam = ClippedAdam([{**same, **g} for g in groups], warmup=warmup, weight_decay=decay)
    return Phase(name, adam, learned, None, loss)
