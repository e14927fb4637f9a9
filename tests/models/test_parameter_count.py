"""The closed-form parameter counts equal the specs' tables and the real models."""

from __future__ import annotations

import pytest
import torch

from worldflux.core.config import DreamerV3Config, TDMPC2Config, WorldModelConfig
from worldflux.errors import ConfigurationError
from worldflux.models.catalog import count_parameters, default_config, list_models
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.models.tdmpc2 import TDMPC2WorldModel
from worldflux.models.tdmpc2.family import tdmpc2_parameters


def real_count(config: WorldModelConfig) -> int:
    """Learnable parameters of the model itself, built without memory."""
    family = TDMPC2WorldModel if isinstance(config, TDMPC2Config) else DreamerV3WorldModel
    with torch.device("meta"):
        model = family(config)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("model_id", list_models(surface="public"))
def test_every_preset_counts_as_the_real_model(model_id: str) -> None:
    config = default_config(model_id)
    assert count_parameters(config) == real_count(config)


@pytest.mark.parametrize(
    "overrides",
    [
        {"action_type": "discrete"},
        {"obs_shape": (5,)},
        {"obs_shape": (5,), "action_type": "discrete"},
        {"use_twohot": False},
        {"obs_shape": (1, 96, 96)},
        {"blocks": 4, "decoder_blocks": 4},
        {"cnn_kernels": (5, 4, 3, 4)},
        {"cnn_kernels": (3, 3), "cnn_mults": (1, 2)},
        {"cnn_kernels": (5, 5, 5, 5), "cnn_downsample": "pool"},
        {"encoder_type": "mlp", "decoder_type": "mlp"},
        {"obs_shape": (8, 8)},
        {"recipe": "official"},
        {"num_mlp_layers": 2, "num_prior_layers": 1, "num_posterior_layers": 2},
        {"num_dynamics_layers": 2, "num_reward_layers": 2, "num_continue_layers": 3},
    ],
    ids=str,
)
def test_dreamerv3_variants(overrides: dict) -> None:
    config = DreamerV3Config.from_size("ci", **overrides)
    assert count_parameters(config) == real_count(config)


@pytest.mark.parametrize(
    "overrides",
    [
        {"num_tasks": 3},
        {"episodic": True},
        {"use_decoder": True},
        {"num_tasks": 3, "use_decoder": True},
        {"num_hidden_layers": 3, "num_enc_layers": 4, "enc_dim": 20},
        {"num_hidden_layers": 1, "num_enc_layers": 1},
        {"obs_shape": (9, 64, 64)},
        {"obs_shape": (9, 64, 64), "latent_dim": 512},
        {"obs_shape": (3, 64, 64), "use_decoder": True},
    ],
    ids=str,
)
def test_tdmpc2_variants(overrides: dict) -> None:
    config = TDMPC2Config.from_size("ci", **overrides)
    assert count_parameters(config) == real_count(config)


@pytest.mark.parametrize(
    ("size", "single", "multi"),
    [
        ("1m", 1_214_651, 1_435_067),
        ("5m", 4_960_618, 5_389_930),
        ("19m", 18_062_442, 18_970_218),
        ("48m", 47_208_298, 48_791_146),
        ("317m", 312_595_417, 317_383_129),
    ],
)
def test_official_tdmpc2_sizes_have_the_published_counts(
    size: str, single: int, multi: int
) -> None:
    """Spec tdmpc2.md 1.7: single task with 24 observations, and the 80 tasks of mt80."""
    config = TDMPC2Config.from_size(f"official_{size}", obs_shape=(24,), action_dim=6)
    assert count_parameters(config) == single
    mt80 = TDMPC2Config.from_size(f"official_{size}", obs_shape=(39,), num_tasks=80, task_dim=96)
    assert count_parameters(mt80) == multi


def test_official_5m_by_network() -> None:
    config = TDMPC2Config.from_size("official_5m", obs_shape=(24,), action_dim=6, episodic=True)
    assert tdmpc2_parameters(config) == {
        "encoder": 139_520,
        "dynamics": 794_112,
        "reward": 582_245,
        "policy": 533_516,
        "q_ensemble": 5 * 582_245,
        "termination": 527_873,
    }


@pytest.mark.parametrize(
    ("size", "image", "atari", "walker"),
    [
        ("1m", 686_456, 769_762, 640_867),
        ("12m", 10_492_616, 11_808_850, 9_738_019),
        ("25m", 23_487_016, 26_444_402, 21_782_947),
        ("50m", 41_646_984, 46_900_882, 38_612_003),
        ("100m", 93_463_624, 105_276_626, 86_622_499),
        ("200m", 165_942_536, 186_936_082, 153_769_507),
        ("400m", 372_887_176, 420_106_130, 345_473_059),
    ],
)
def test_official_dreamerv3_sizes_have_the_published_counts(
    size: str, image: int, atari: int, walker: int
) -> None:
    """Spec dreamerv3.md 1.6."""
    name = f"official_{size}"
    assert count_parameters(DreamerV3Config.from_size(name, action_type="discrete")) == image
    grey = {"obs_shape": (1, 96, 96), "action_dim": 18, "action_type": "discrete"}
    assert count_parameters(DreamerV3Config.from_size(name, **grey)) == atari
    assert count_parameters(DreamerV3Config.from_size(name, obs_shape=(24,))) == walker


def test_what_the_closed_form_does_not_cover_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no family builds"):
        count_parameters(WorldModelConfig())
    pair = {name: {"kind": "vector", "shape": [3]} for name in ("a", "b")}
    with pytest.raises(ConfigurationError, match="one observation"):
        count_parameters(DreamerV3Config.from_size("ci", observation_modalities=pair))
