"""The configuration reference: every table row and example, as written."""

from __future__ import annotations

from pathlib import Path

import pytest

from worldflux.core.config import (
    DreamerV3Config,
    DynamicsType,
    LatentType,
    TDMPC2Config,
    WorldModelConfig,
)

BASE = {
    "model_type": "base",
    "model_name": "unnamed",
    "obs_shape": (3, 64, 64),
    "action_dim": 6,
    "action_type": "continuous",
    "observation_modalities": {"obs": {"kind": "image", "shape": (3, 64, 64)}},
    "action_spec": {"kind": "continuous", "dim": 6},
    "latent_type": LatentType.DETERMINISTIC,
    "latent_dim": 256,
    "deter_dim": 256,
    "stoch_dim": 32,
    "dynamics_type": DynamicsType.MLP,
    "hidden_dim": 512,
    "learning_rate": 3e-4,
    "grad_clip": 100.0,
    "device": "cuda",
    "dtype": "float32",
}
DREAMER = {
    "stoch_discrete": 32,
    "stoch_classes": 32,
    "encoder_type": "cnn",
    "decoder_type": "cnn",
    "cnn_depth": 48,
    "cnn_kernels": (4, 4, 4, 4),
    "learning_rate": 1e-4,
    "grad_clip": 1000.0,
    "kl_free": 1.0,
    "loss_scales": {
        "reconstruction": 1.0,
        "kl_dynamics": 0.5,
        "kl_representation": 0.1,
        "reward": 1.0,
        "continue": 1.0,
    },
    "use_symlog": True,
    "use_twohot": True,
    "reward_num_bins": 255,
    "reward_bin_min": -20.0,
    "reward_bin_max": 20.0,
    "actor_critic": False,
    "imagination_horizon": 15,
    "actor_lr": 3e-5,
    "critic_lr": 3e-5,
    "gamma": 0.997,
    "lambda_": 0.95,
    "slow_critic_fraction": 0.02,
    "actor_entropy_coef": 3e-4,
    "return_normalization": True,
}
TDMPC2 = {
    "simnorm_dim": 8,
    "num_hidden_layers": 2,
    "task_dim": 96,
    "num_tasks": 1,
    "num_q_networks": 5,
    "horizon": 5,
    "num_samples": 512,
    "num_elites": 64,
    "temperature": 0.5,
    "momentum": 0.1,
    "gamma": 0.99,
    "use_decoder": False,
}


@pytest.mark.rows(
    "configuration",
    "WorldModelConfig",
    "dreamer fields",
    "actor-critic fields",
    "loss_scales",
    "tdmpc2 fields",
)
@pytest.mark.parametrize(
    ("config", "documented"),
    [(WorldModelConfig(), BASE), (DreamerV3Config(), DREAMER), (TDMPC2Config(), TDMPC2)],
    ids=["base", "dreamer", "tdmpc2"],
)
def test_documented_defaults(config: WorldModelConfig, documented: dict) -> None:
    assert {name: getattr(config, name) for name in documented} == documented


@pytest.mark.rows("configuration", "LatentType", "DynamicsType")
def test_enums() -> None:
    assert {m.name for m in LatentType} == {
        "DETERMINISTIC",
        "GAUSSIAN",
        "CATEGORICAL",
        "VQ",
        "SIMNORM",
    }
    assert {m.name for m in DynamicsType} == {"RSSM", "MLP", "TRANSFORMER", "SSM"}
    assert DreamerV3Config().latent_type is LatentType.CATEGORICAL
    assert DreamerV3Config().dynamics_type is DynamicsType.RSSM
    assert TDMPC2Config().latent_type is LatentType.SIMNORM


def test_specs_are_filled_from_the_shapes() -> None:
    config = WorldModelConfig(obs_shape=(39,), action_dim=4)
    assert next(iter(config.observation_modalities.values()))["shape"] == (39,)
    assert config.action_spec["dim"] == 4


@pytest.mark.rows("configuration", "config methods", "config example")
def test_dict_and_json_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.warns(UserWarning, match=r"\(C, H, W\)"):
        config = WorldModelConfig(obs_shape=(84, 84, 3), action_dim=4)
    config.save("config.json")
    with pytest.warns(UserWarning, match=r"\(C, H, W\)"):
        loaded = WorldModelConfig.load("config.json")
    assert loaded.to_dict() == config.to_dict()
    for made in (DreamerV3Config.from_size("ci"), TDMPC2Config.from_size("ci")):
        again = WorldModelConfig.from_dict(made.to_dict())
        assert type(again) is type(made)
        assert again.to_dict() == made.to_dict()


@pytest.mark.rows("configuration", "dreamer presets")
@pytest.mark.parametrize(
    ("size", "deter", "groups", "classes", "hidden", "depth"),
    [
        ("ci", 64, 4, 4, 32, 8),
        ("size12m", 2048, 16, 16, 256, 48),
        ("size25m", 4096, 32, 16, 512, 48),
        ("size50m", 4096, 32, 32, 640, 48),
        ("size100m", 8192, 32, 32, 768, 48),
        ("size200m", 8192, 32, 32, 1024, 48),
        ("official_xl", 8192, 32, 64, 1024, 64),
    ],
)
def test_dreamer_presets(
    size: str, deter: int, groups: int, classes: int, hidden: int, depth: int
) -> None:
    config = DreamerV3Config.from_size(size)
    assert (config.deter_dim, config.stoch_discrete, config.stoch_classes) == (
        deter,
        groups,
        classes,
    )
    assert (config.hidden_dim, config.cnn_depth) == (hidden, depth)


@pytest.mark.rows("configuration", "tdmpc2 presets")
@pytest.mark.parametrize(
    ("size", "latent", "hidden", "heads"),
    [
        ("ci", 32, 32, 2),
        ("5m", 256, 256, 5),
        ("proof_5m", 256, 256, 5),
        ("5m_legacy", 256, 256, 5),
        ("19m", 512, 512, 5),
        ("48m", 512, 1024, 5),
        ("317m", 1024, 2048, 5),
    ],
)
def test_tdmpc2_presets(size: str, latent: int, hidden: int, heads: int) -> None:
    config = TDMPC2Config.from_size(size)
    assert (config.latent_dim, config.hidden_dim, config.num_q_networks) == (latent, hidden, heads)


@pytest.mark.rows("configuration", "dreamer from_size", "tdmpc2 from_size")
@pytest.mark.parametrize("family", [DreamerV3Config, TDMPC2Config])
def test_from_size_takes_a_name_and_overrides(family: type[WorldModelConfig]) -> None:
    assert family.from_size("ci", action_dim=3).action_dim == 3
    assert family.from_size(size="ci").model_name == "ci"
    with pytest.raises(ValueError, match="size preset"):
        family.from_size("size13m")


@pytest.mark.rows("configuration", "dreamer examples")
def test_dreamer_examples() -> None:
    config = DreamerV3Config.from_size("size12m")
    assert config.deter_dim == 2048

    config = DreamerV3Config(
        obs_shape=(3, 64, 64),
        action_dim=4,
        deter_dim=1024,
        stoch_discrete=16,
        stoch_classes=16,
    )
    assert config.stoch_dim == 256

    config = DreamerV3Config.from_size("size50m", action_dim=18, cnn_depth=64)
    assert (config.action_dim, config.cnn_depth, config.hidden_dim) == (18, 64, 640)


@pytest.mark.rows("configuration", "tdmpc2 examples")
def test_tdmpc2_examples() -> None:
    config = TDMPC2Config.from_size("5m", obs_shape=(39,), action_dim=6)
    assert config.obs_shape == (39,)

    config = TDMPC2Config(
        obs_shape=(39,),
        action_dim=6,
        latent_dim=256,
        hidden_dim=256,
    )
    assert config.latent_dim == 256

    config = TDMPC2Config.from_size("317m", num_q_networks=10, horizon=8)
    assert (config.num_q_networks, config.horizon) == (10, 8)


@pytest.mark.rows("configuration", "tdmpc2 rules")
@pytest.mark.parametrize(
    "wrong",
    [
        {"latent_dim": 36},
        {"num_elites": 513},
        {"temperature": 0.0},
        {"momentum": 1.5},
        {"gamma": 0.0},
        {"gamma": 1.01},
    ],
    ids=str,
)
def test_documented_rules_of_tdmpc2(wrong: dict) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        TDMPC2Config(**wrong)
