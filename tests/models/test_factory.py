"""`create_world_model` and `get_config`: presets, folders, backends, components."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from worldflux import OfficialBackendHandle, create_world_model, get_config, list_models
from worldflux.core.rollout import AutoregressiveRollout
from worldflux.core.state import State
from worldflux.errors import CheckpointError, ConfigurationError, ModelNotFoundError
from worldflux.training.checkpoints import CheckpointStore

SMALL = {"obs_shape": (3,), "action_dim": 1}


def test_preset_with_overrides() -> None:
    model = create_world_model("tdmpc2-ci", **SMALL, num_q_networks=3)
    assert model.config.num_q_networks == 3
    assert model.config.obs_shape == (3,)
    assert model.config.device == "cpu"
    assert not model.training


def test_get_config_is_what_the_model_is_built_with() -> None:
    config = get_config("dreamer:ci", obs_shape=(4,), action_dim=2, kl_free=0.5)
    assert (config.obs_shape, config.action_dim, config.kl_free) == ((4,), 2, 0.5)


@pytest.mark.parametrize("name", ["tdmpc2:ci", "dreamer:ci"])
def test_a_saved_model_opens_again(name: str, tmp_path: Path) -> None:
    model = create_world_model(name, **SMALL)
    model.save_pretrained(tmp_path / "saved")
    again = create_world_model(tmp_path / "saved")
    assert again.config.to_dict() == model.config.to_dict()
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[key]), key


def test_an_outputs_folder_opens_at_its_newest_intact_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    models = [create_world_model("tdmpc2:ci", **SMALL, horizon=h) for h in (2, 3)]
    for step, model in enumerate(models, start=1):
        store.save(step, model.save_pretrained)
    assert create_world_model(tmp_path).config.horizon == 3
    assert create_world_model(store.path(1)).config.horizon == 2
    (tmp_path / "run_manifest.json").write_text('{"best": {"step": 1}}')
    assert create_world_model(tmp_path).config.horizon == 2
    (tmp_path / "run_manifest.json").write_text('{"best": {"step": 7}}')
    with pytest.raises(CheckpointError, match="best checkpoint, step-000000007, is missing"):
        create_world_model(tmp_path)
    (tmp_path / "run_manifest.json").write_text('{"best": null}')
    weights = store.path(2) / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x55")
    assert create_world_model(tmp_path).config.horizon == 2
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        create_world_model(store.path(2))
    (store.path(1) / "config.json").unlink()
    with pytest.raises(CheckpointError, match="no checkpoint here is intact"):
        create_world_model(tmp_path)


@pytest.mark.parametrize("name", ["./nope", "/nope/at/all", "nope/model"])
def test_a_missing_path_is_told_as_one(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="path does not exist"):
        create_world_model(name)


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no saved model here"):
        create_world_model(tmp_path)


def test_a_saved_model_keeps_its_shapes(tmp_path: Path) -> None:
    create_world_model("tdmpc2:ci", **SMALL).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="action_dim = 1, not 4"):
        create_world_model(tmp_path, action_dim=4)
    assert create_world_model(tmp_path, obs_shape=(3,), num_samples=64).config.num_samples == 64
    with pytest.raises(CheckpointError, match="has shape"):
        create_world_model(tmp_path, hidden_dim=64)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"model": "tdmpc2:ci", "hiden_dim": 3}, "did you mean 'hidden_dim'"),
        ({"model": "tdmpc2:ci", "device": "gpu"}, "'gpu' is not allowed"),
        ({"model": "tdmpc2:ci", "api_version": "v2"}, "api_version"),
        ({"model": "tdmpc2:ci", "backend": "jax"}, "native_torch, official_dreamerv3"),
        (
            {"model": "tdmpc2:5m", "backend": "official_dreamerv3_jax_subprocess"},
            "official_tdmpc2_torch_subprocess",
        ),
        ({"model": "tdmpc2:ci", "component_overrides": {"decoder": object()}}, "decoder_module"),
        (
            {"model": "tdmpc2:ci", "component_overrides": {"rollout_executor": object()}},
            "has no rollout",
        ),
        (
            {"model": "tdmpc2:ci", "component_overrides": {"rollout_executor": "nobodys"}},
            "no component is registered as 'nobodys'",
        ),
    ],
)
def test_mistakes_name_the_way_out(kwargs: dict, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        create_world_model(**{**SMALL, **kwargs})
    assert message in str(caught.value)


def test_a_delegated_backend_gives_a_handle() -> None:
    handle = create_world_model(
        "dreamerv3:official", backend="worldflux_dreamerv3_jax_subprocess", device="cuda"
    )
    assert isinstance(handle, OfficialBackendHandle)
    assert handle.model_id == "dreamerv3:official_xl"
    assert handle.metadata["device"] == "cuda"


class HalfDynamics:
    """A component that takes the configuration."""

    def __init__(self, config) -> None:
        self.size = config.latent_dim

    def transition(self, state, conditioned, deterministic=False) -> State:
        return State({"latent": torch.zeros_like(state.tensors["latent"])}, dict(state.meta))


def test_components_by_class_factory_and_instance() -> None:
    instance = AutoregressiveRollout()
    as_class = {"dynamics_model": HalfDynamics, "rollout_executor": AutoregressiveRollout}
    model = create_world_model("tdmpc2:ci", **SMALL, component_overrides=as_class)
    assert model.dynamics_model.size == 32
    by_factory = {"dynamics_model": lambda config: HalfDynamics(config)}
    model = create_world_model("tdmpc2:ci", **SMALL, component_overrides=by_factory)
    assert isinstance(model.dynamics_model, HalfDynamics)
    by_instance = {"rollout_executor": instance}
    model = create_world_model("tdmpc2:ci", **SMALL, component_overrides=by_instance)
    assert model.rollout_executor is instance


@pytest.fixture
def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third-party distribution on the path, as pip would have put it there."""
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[worldflux.components]\nacme-rollout = acme_parts:Rollout\n"
        "[worldflux.models]\nacme = acme_parts:Model\nhollow = acme_parts:Rollout\n"
        "misnamed = acme_parts:Misnamed\n"
    )
    (tmp_path / "acme_parts.py").write_text(
        "from worldflux import TDMPC2Config, TDMPC2WorldModel\n"
        "from worldflux.core.config import strict_dataclass\n"
        "from worldflux.core.rollout import AutoregressiveRollout\n"
        "class Rollout(AutoregressiveRollout):\n    pass\n"
        "@strict_dataclass\nclass Config(TDMPC2Config):\n"
        "    MODEL_TYPES = ('acme',)\n    model_type: str = 'acme'\n"
        "class Model(TDMPC2WorldModel):\n    config_class = Config\n"
        "class Misnamed(TDMPC2WorldModel):\n    config_class = TDMPC2Config\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("raise ValueError('no licence')", "ValueError: no licence"),
        ("raise SystemExit('no licence')", "SystemExit: no licence"),
        ("import nothing_of_the_kind", "ModuleNotFoundError"),
        ("", "AttributeError"),
    ],
)
def test_a_family_that_cannot_be_loaded_is_left_out_and_named(
    content: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = tmp_path / "lame-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lame\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[worldflux.models]\nlame = lame_parts:Model\n")
    (tmp_path / "lame_parts.py").write_text(f"import os\n{content}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "lame_parts", raising=False)
    with pytest.warns(UserWarning, match="'lame' of the package 'lame' cannot be loaded"):
        assert "tdmpc2:ci" in list_models(surface="all")
    with pytest.raises(ConfigurationError, match=said) as refused:
        create_world_model("lame")
    if content:
        assert str(refused.value.where) == f"{tmp_path / 'lame_parts.py'}:2"


@pytest.mark.usefixtures("installed_package")
def test_installed_packages_register_components_and_families() -> None:
    parts = {"rollout_executor": "acme-rollout"}
    model = create_world_model("tdmpc2:ci", **SMALL, component_overrides=parts)
    assert type(model.rollout_executor).__name__ == "Rollout"
    assert get_config("acme:ci", **SMALL).latent_dim == 32
    family = create_world_model("acme:ci", **SMALL)
    assert type(family).__name__ == "Model"
    with pytest.raises(ConfigurationError, match="no config_class"):
        create_world_model("hollow")
    with pytest.raises(ConfigurationError, match="of model_type 'tdmpc2'"):
        create_world_model("misnamed")


class OwnEncoder(torch.nn.Module):
    """A component with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 32)

    def encode(self, observations, deterministic=False) -> State:
        return State({"latent": self.linear(observations["obs"])})


def test_a_part_with_weights_is_saved_and_comes_back_with_them(tmp_path: Path) -> None:
    parts = {"observation_encoder": OwnEncoder}
    model = create_world_model("tdmpc2:ci", **SMALL, component_overrides=parts)
    model.save_pretrained(tmp_path)
    again = create_world_model(tmp_path, component_overrides=parts)
    obs = torch.randn(2, 3)
    assert torch.equal(again.encode(obs)["latent"], model.encode(obs)["latent"])
    with pytest.raises(CheckpointError, match=r"component_overrides=\{'observation_encoder'"):
        create_world_model(tmp_path)
    plain = create_world_model("tdmpc2:ci", **SMALL)
    plain.save_pretrained(tmp_path / "plain")
    fresh = create_world_model(tmp_path / "plain", component_overrides=parts)
    for own, saved in zip(
        fresh.networks.policy.parameters(), plain.networks.policy.parameters(), strict=True
    ):
        assert torch.equal(own, saved)


def test_a_damaged_config_is_told(tmp_path: Path) -> None:
    create_world_model("tdmpc2:ci", **SMALL).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "horizon": -1}))
    with pytest.raises(ConfigurationError, match="horizon"):
        create_world_model(tmp_path)


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("dreamer:ci", {"num_mlp_layers": 10**9}),
        ("dreamer:ci", {"cnn_mults": [1] * 50_000, "cnn_kernels": [4] * 50_000}),
        ("tdmpc2:ci", {"num_hidden_layers": 10**9}),
    ],
    ids=str,
)
def test_a_configuration_of_far_more_layers_than_its_file_is_refused_at_once(
    tmp_path: Path, model: str, changes: dict[str, Any]
) -> None:
    create_world_model(model, obs_shape=(3,), action_dim=1).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content |= {**changes, "set_fields": [*content["set_fields"], *changes]}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"describes [\d,]+ layers, its file"):
        create_world_model(tmp_path)
