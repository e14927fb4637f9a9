"""No field of the configuration is dead: another value changes the model, its loss or its use."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from worldflux.core.config import DreamerV3Config
from worldflux.core.learning import LearningOverrides
from worldflux.models.dreamerv3 import DreamerV3WorldModel

from .builders import IMAGE, SMALL, random_batch, small_config

# Fields with another home: what the factory, the environment or the Trainer reads, and names.
ELSEWHERE = {"model_type", "model_name", "device", "latent_type", "dynamics_type", "latent_dim"}
OTHER: dict[str, Any] = {
    "obs_shape": (6,),
    "action_dim": 3,
    "action_type": "discrete",
    "observation_modalities": {"o": {"kind": "vector", "shape": [5]}},
    "action_spec": {
        "kind": "continuous",
        "dim": 2,
        "parts": {"a": {"kind": "discrete", "dim": 2}},
    },
    "deter_dim": 32,
    "stoch_discrete": 5,
    "stoch_classes": 6,
    "stoch_dim": None,  # follows from the two above
    "hidden_dim": 16,
    "learning_rate": 0.5,
    "grad_clip": 2.0,
    "dtype": "bfloat16",
    "encoder_type": "mlp",
    "decoder_type": "mlp",
    "cnn_depth": 8,
    "cnn_kernels": (3, 5),
    "kl_free": 0.0,
    "loss_scales": {"reward": 3.0},
    "use_symlog": False,
    "use_twohot": False,
    "reward_num_bins": 41,
    "reward_bin_min": -3.0,
    "reward_bin_max": 3.0,
    "actor_critic": False,
    "imagination_horizon": 7,
    "actor_lr": 0.5,
    "critic_lr": 0.5,
    "gamma": 0.5,
    "lambda_": 0.1,
    "slow_critic_fraction": 0.9,
    "actor_entropy_coef": 0.5,
    "return_normalization": False,
    "recipe": "official",
    "kl_balance": 0.3,
    "representation": "barlow",
    "barlow_lambda": 0.3,
    "probe_decoder": True,
    "blocks": 2,
    "decoder_blocks": 2,
    "num_dynamics_layers": 2,
    "num_prior_layers": 1,
    "num_posterior_layers": 2,
    "num_mlp_layers": 1,
    "num_reward_layers": 2,
    "num_continue_layers": 2,
    "cnn_mults": (2, 2),
    "cnn_downsample": "pool",
    "unimix": 0.3,
    "actor_unimix": 0.3,
    "actor_std_min": 0.3,
    "actor_std_max": 2.0,
    "reward_outscale": 1.0,
    "critic_outscale": 1.0,
    "actor_outscale": 1.0,
    "optimizer": "laprop",
    "lr_warmup_updates": 10,
    "agc_clip": 0.1,
    "adam_eps": 0.1,
    "actor_adam_eps": 0.1,
    "actor_grad_clip": 1.0,
    "continue_horizon": 20,
    "slow_critic_scale": 4.0,
    "return_percentile_low": 40.0,
    "return_percentile_high": 60.0,
    "return_decay": 0.5,
    "return_limit": 1e9,
    "replay_context": 1,
    "batch_size": 2,
    "batch_length": 9,
    "train_ratio": 3.0,
}
# What a field needs around it to matter.
AROUND: dict[str, dict[str, Any]] = {
    "actor_unimix": {"action_type": "discrete"},
    "agc_clip": {"optimizer": "laprop"},
    "barlow_lambda": {"representation": "barlow"},
    "probe_decoder": {"representation": "barlow"},
    "unimix": {"kl_free": 0.0},
    "kl_balance": {"kl_free": 0.0},
    **dict.fromkeys(
        (
            "encoder_type",
            "decoder_type",
            "cnn_depth",
            "cnn_kernels",
            "cnn_mults",
            "cnn_downsample",
            "decoder_blocks",
        ),
        IMAGE,
    ),
}


def fingerprint(fields: dict[str, Any]) -> list[Any]:
    """Everything that a configuration decides: sizes, losses, optimiser, targets, recipe."""
    torch.manual_seed(0)
    config = small_config(**fields)
    model = DreamerV3WorldModel(config)
    model.sampling = False
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("slow_critic."):
                parameter.add_(0.3 * torch.randn_like(parameter))
    phase = model.phases(LearningOverrides())[0]
    scratch: dict[str, torch.Tensor] = {}
    output = phase.loss(random_batch(model), scratch)
    output.loss.backward()
    model.after_update(scratch)
    settings = [
        {k: v for k, v in group.items() if k != "params"} for group in phase.optimizer.param_groups
    ]
    return [
        [(name, tuple(p.shape)) for name, p in model.named_parameters()],
        output.loss.item(),
        {name: value.item() for name, value in output.components.items()},
        sum(p.grad.abs().sum().item() for p in model.parameters() if p.grad is not None),
        settings,
        [p.sum().item() for p in model.slow_critic.parameters()],
        model.return_normalizer.high_value.item() - model.return_normalizer.low_value.item(),
        dataclasses.astuple(config.training_recipe()),
        model.replay_columns(),
    ]


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(DreamerV3Config)])
def test_every_field_is_read(field: str) -> None:
    if field in ELSEWHERE or OTHER[field] is None:
        return
    around = AROUND.get(field, {})
    other = {**around, field: OTHER[field]}
    assert OTHER[field] != {**SMALL, **around}.get(field)
    assert fingerprint(around) != fingerprint(other)


def test_the_same_configuration_gives_the_same_fingerprint() -> None:
    assert fingerprint({}) == fingerprint({})


@pytest.mark.parametrize("size", ["ci", "size12m", "official_1m", "official_xl"])
@pytest.mark.parametrize("obs_shape", [(39,), (3, 64, 64), (1, 84, 84)])
def test_presets_can_be_built(size: str, obs_shape: tuple[int, ...]) -> None:
    with torch.device("meta"):
        model = DreamerV3WorldModel(DreamerV3Config.from_size(size, obs_shape=obs_shape))
    assert model.config.model_name == size
