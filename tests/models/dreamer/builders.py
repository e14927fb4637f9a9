"""Tiny DreamerV3 agents and batches for tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from worldflux.core.batch import Batch
from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import LearningOverrides, Scratch
from worldflux.models.dreamerv3 import DreamerV3WorldModel

SMALL: dict[str, Any] = {
    "obs_shape": (5,),
    "action_dim": 2,
    "deter_dim": 16,
    "stoch_discrete": 3,
    "stoch_classes": 4,
    "hidden_dim": 8,
    "blocks": 4,
    "decoder_blocks": 4,
    "cnn_depth": 4,
    "imagination_horizon": 4,
    "actor_critic": True,
}
IMAGE = {"obs_shape": (3, 16, 16), "cnn_mults": (1, 2), "cnn_kernels": (4, 4)}
SEVERAL = {
    "obs_shape": (2,),
    "observation_modalities": {
        "camera": {"kind": "image", "shape": [3, 16, 16]},
        "depth": {"kind": "image", "shape": [1, 16, 16]},
        "joints": {"kind": "vector", "shape": [2, 3]},
        "mode": {"kind": "discrete", "shape": [2], "classes": 3},
    },
    "cnn_mults": (1, 2),
    "cnn_kernels": (4, 4),
}


def small_config(**changes: Any) -> DreamerV3Config:
    return DreamerV3Config(**{**SMALL, **changes})


def small_model(seed: int = 0, **changes: Any) -> DreamerV3WorldModel:
    """A model whose zero-initialised heads are perturbed, so that every output depends on input."""
    torch.manual_seed(seed)
    model = DreamerV3WorldModel(small_config(**changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def observation(model: DreamerV3WorldModel, *leading: int) -> Any:
    """A random observation: a tensor for one key, a dict for several."""
    found: dict[str, Tensor] = {}
    for key in model.keys:
        if key.kind == "image":
            found[key.name] = torch.randint(0, 256, (*leading, *key.shape), dtype=torch.uint8)
        elif key.kind == "discrete":
            found[key.name] = torch.randint(0, key.classes, (*leading, *key.shape))
        else:
            found[key.name] = 3 * torch.randn(*leading, *key.shape)
    return next(iter(found.values())) if len(found) == 1 else found


def random_actions(model: DreamerV3WorldModel, *leading: int) -> Tensor:
    columns = []
    for part in model.parts:
        if part.kind == "discrete":
            index = torch.randint(0, part.width, leading)
            columns.append(torch.eye(part.width)[index])
        else:
            columns.append(torch.randn(*leading, part.width))
    return torch.cat(columns, -1)


def random_batch(
    model: DreamerV3WorldModel, size: int = 3, length: int = 6, *, latents: bool | None = None
) -> Batch:
    """A batch with an episode's end in the middle of its first sequence."""
    config = model.config
    last = torch.zeros(size, length, dtype=torch.bool)
    last[0, length // 2] = True
    first = torch.zeros_like(last)
    first[0, length // 2 + 1] = True
    extras = {}
    if config.replay_context if latents is None else latents:
        extras = {
            "deter": torch.rand(size, length, config.deter_dim) * 2 - 1,
            "stoch": torch.randint(
                1, config.stoch_classes + 1, (size, length, config.stoch_discrete)
            ).float(),
        }
    return Batch(
        obs=observation(model, size, length),
        actions=random_actions(model, size, length),
        rewards=torch.randn(size, length),
        terminations=last.clone(),
        is_first=first,
        is_last=last,
        extras=extras,
    )


def run_update(
    model: DreamerV3WorldModel, batch: Batch, overrides: LearningOverrides | None = None
) -> tuple[Any, dict[str, Tensor]]:
    """One update as the Trainer makes it; returns the loss output and the written columns."""
    (phase,) = model.phases(overrides or LearningOverrides())
    scratch: Scratch = {}
    phase.optimizer.zero_grad(set_to_none=True)
    output = phase.loss(batch, scratch)
    output.loss.backward()
    if phase.grad_clip is not None:
        torch.nn.utils.clip_grad_norm_(phase.parameters, phase.grad_clip)
    phase.optimizer.step()
    return output, model.after_update(scratch)
