"""Seed 002, the factory functions: every example, as written."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from worldflux import (
    MODEL_ALIASES,
    OfficialBackendHandle,
    WorldModel,
    create_world_model,
    get_config,
    list_models,
)

ALIASES = {
    "dreamer": "dreamerv3:size12m",
    "dreamer-ci": "dreamer:ci",
    "dreamer-small": "dreamerv3:size12m",
    "dreamer-medium": "dreamerv3:size50m",
    "dreamer-large": "dreamerv3:size200m",
    "tdmpc": "tdmpc2:5m",
    "tdmpc2-ci": "tdmpc2:ci",
    "tdmpc-small": "tdmpc2:5m",
    "tdmpc-medium": "tdmpc2:48m",
    "tdmpc-large": "tdmpc2:317m",
}


def test_first_example() -> None:
    with torch.device("meta"):  # 12 million parameters need no memory here
        model = create_world_model(
            model="dreamerv3:size12m",
            obs_shape=(3, 64, 64),
            action_dim=4,
            device="meta",
        )
    assert isinstance(model, WorldModel)
    assert model.config.action_dim == 4


@pytest.mark.parametrize("name", ["dreamer:ci", "tdmpc2:ci"])
def test_ci_presets(name: str) -> None:
    assert isinstance(create_world_model(name), WorldModel)


def test_aliases() -> None:
    for alias, model_id in ALIASES.items():
        assert MODEL_ALIASES[alias] == model_id
        assert get_config(alias).to_dict() == get_config(model_id).to_dict()


def test_load_from_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    create_world_model("tdmpc2:ci").save_pretrained("my_saved_model")
    assert isinstance(create_world_model("./my_saved_model"), WorldModel)
    assert isinstance(create_world_model(str(tmp_path / "my_saved_model")), WorldModel)


def test_config_overrides() -> None:
    model = create_world_model(
        "tdmpc2:19m",
        obs_shape=(39,),
        action_dim=6,
        hidden_dim=768,  # Valid TDMPC2Config field
        num_q_networks=7,  # Valid TDMPC2Config field
    )
    assert (model.config.hidden_dim, model.config.num_q_networks) == (768, 7)


def test_delegated_backend_example() -> None:
    from worldflux.training import TrainingConfig

    handle = create_world_model(
        "dreamerv3:official_xl",
        backend="worldflux_dreamerv3_jax_subprocess",
        device="cuda",
    )
    assert isinstance(handle, OfficialBackendHandle)
    assert handle.backend == "worldflux_dreamerv3_jax_subprocess"
    config = TrainingConfig(
        backend="worldflux_dreamerv3_jax_subprocess",
        backend_profile="official_xl",
        device="cuda",
    )
    assert config.backend == handle.backend


def test_list_models_examples() -> None:
    models = list_models()
    assert isinstance(models, list)
    models = list_models(verbose=True)
    assert all("description" in entry for entry in models.values())
    public = list_models(verbose=True, surface="public")
    assert {"dreamerv3:official_xl", "tdmpc2:proof_5m"} <= public.keys() - models.keys()
    assert list_models(verbose=True, surface="all").keys() >= public.keys()
