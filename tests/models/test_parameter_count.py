"""The parameter counts of the catalogue equal the real models', and the published ones."""

from __future__ import annotations

import pytest
import torch

from worldflux.core.config import DreamerV3Config, TDMPC2Config, WorldModelConfig
from worldflux.errors import ConfigurationError
from worldflux.models.catalog import (
    count_parameters,
    default_config,
    family_of_model,
    get_model_info,
    list_models,
)


@pytest.mark.parametrize("model_id", list_models(surface="public"))
def test_every_preset_counts_as_the_real_model(model_id: str) -> None:
    noted = family_of_model(model_id).presets[model_id].parameters
    assert noted == get_model_info(model_id)["parameters"]
    assert noted == count_parameters(default_config(model_id))


def test_counting_takes_no_random_numbers_and_leaves_out_what_is_frozen() -> None:
    config = default_config("tdmpc2:ci", obs_shape=(9, 64, 64))
    before = torch.get_rng_state()
    count = count_parameters(config)
    assert torch.equal(torch.get_rng_state(), before)
    model = family_of_model("tdmpc2:ci").load_model()(config)
    frozen = sum(p.numel() for p in model.networks.q_target.parameters())
    assert count == sum(p.numel() for p in model.parameters()) - frozen


def test_a_model_of_several_observations_is_counted() -> None:
    pair = {name: {"kind": "vector", "shape": [3]} for name in ("a", "b")}
    config = DreamerV3Config.from_size("ci", observation_modalities=pair)
    both = DreamerV3Config.from_size("ci", obs_shape=(6,))
    # Two output layers of three numbers each are as large as one of six.
    assert count_parameters(config) == count_parameters(both)


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


@pytest.mark.parametrize(("size", "published"), [("1m", 770_091), ("12m", 11_843_595)])
def test_agents_without_a_decoder_have_the_published_counts(size: str, published: int) -> None:
    """Spec r2dreamer.md 1: 64 x 64 x 3, six continuous actions."""
    assert count_parameters(default_config(f"r2dreamer:official_{size}")) == published


def test_what_no_family_builds_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no family builds"):
        count_parameters(WorldModelConfig())


@pytest.mark.parametrize(
    ("preset", "size", "actions", "published"),
    [
        ("official_5m", 24, 6, 3_207_739),
        ("official_5m", 223, 38, 3_324_283),
        ("official_5m", 67, 21, 3_249_497),
        ("laptop", 24, 6, 246_843),
    ],
    ids=["walker", "dog", "humanoid", "laptop"],
)
def test_bmpc_has_the_published_counts(
    preset: str, size: int, actions: int, published: int
) -> None:
    config = default_config(f"bmpc:{preset}", obs_shape=(size,), action_dim=actions)
    assert count_parameters(config) == published
