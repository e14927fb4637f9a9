"""The configuration guide: every example, as written."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worldflux.errors import ConfigurationError
from worldflux.project.loader import load_project
from worldflux.project.problems import ProjectFileError


@pytest.mark.rows("training", "import paths")
def test_import_paths() -> None:
    import worldflux
    import worldflux.core.config
    import worldflux.training
    import worldflux.training.config

    assert worldflux.DreamerV3Config is worldflux.core.config.DreamerV3Config
    assert worldflux.TDMPC2Config is worldflux.core.config.TDMPC2Config
    assert worldflux.training.TrainingConfig is worldflux.training.config.TrainingConfig


@pytest.mark.rows("training", "model configs", "tuned dreamer fields", "tuned tdmpc2 fields")
def test_model_configs() -> None:
    from worldflux import DreamerV3Config, TDMPC2Config

    dreamer_cfg = DreamerV3Config.from_size(
        "size50m",
        obs_shape=(3, 64, 64),
        action_dim=18,
    )

    tdmpc_cfg = TDMPC2Config.from_size(
        "19m",
        obs_shape=(39,),
        action_dim=6,
    )
    assert (dreamer_cfg.action_dim, tdmpc_cfg.latent_dim) == (18, 512)
    tuned = ("deter_dim", "stoch_discrete", "stoch_classes", "hidden_dim", "cnn_depth", "kl_free")
    assert all(hasattr(dreamer_cfg, name) for name in (*tuned, "kl_balance"))
    tuned = ("latent_dim", "hidden_dim", "num_hidden_layers", "num_q_networks", "horizon")
    assert all(hasattr(tdmpc_cfg, name) for name in (*tuned, "num_samples", "num_elites"))


@pytest.mark.rows("training", "factory overrides")
def test_factory_overrides() -> None:
    from worldflux import create_world_model

    model = create_world_model(
        "dreamerv3:size12m",
        obs_shape=(3, 64, 64),
        action_dim=4,
        hidden_dim=320,
        stoch_discrete=16,
        stoch_classes=16,
    )
    assert (model.config.hidden_dim, model.config.action_dim) == (320, 4)
    with pytest.raises(ConfigurationError, match="hidden_dims"):
        create_world_model("dreamerv3:size12m", hidden_dims=320)


@pytest.mark.rows("training", "training configuration", "useful training fields")
def test_training_configuration() -> None:
    from worldflux.training import TrainingConfig

    train_cfg = TrainingConfig(
        total_steps=100_000,
        batch_size=16,
        sequence_length=50,
        learning_rate=3e-4,
        grad_clip=100.0,
        device="auto",
        mixed_precision=False,
    )
    documented, default = train_cfg.to_dict(), TrainingConfig().to_dict()
    assert set(documented.pop("set_fields")) > set(default.pop("set_fields"))
    assert documented == default
    useful = (
        "weight_decay warmup_steps log_interval eval_interval save_interval "
        "gradient_accumulation_steps optimizer scheduler ema_decay model_overrides"
    )
    assert all(hasattr(train_cfg, name) for name in useful.split())


@pytest.mark.rows("training", "save and load")
def test_save_and_load_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from worldflux import WorldModelConfig, create_world_model
    from worldflux.training import TrainingConfig

    monkeypatch.chdir(tmp_path)
    create_world_model("tdmpc2:ci").save_pretrained("./my_model")
    model_cfg = WorldModelConfig.load("./my_model")
    assert model_cfg.model_type == "tdmpc2"

    train_cfg = TrainingConfig(total_steps=10_000)
    train_cfg.save("training_config.json")
    loaded_train_cfg = TrainingConfig.load("training_config.json")
    assert loaded_train_cfg == train_cfg


TOML = """
project_name = "guide"
environment = "Pendulum-v1"
model = "tdmpc2:ci"

[training]
total_steps = 1000
batch_size = 16
sequence_length = 50
learning_rate = 3e-4
device = "cpu"
backend = "native_torch"
output_dir = "./outputs"

[data]
source = "random"
buffer_capacity = 1000

[gameplay]
enabled = false
fps = 15

[online_collection]
warmup_transitions = 100
collect_steps_per_update = 2

[visualization]
host = "127.0.0.1"
port = 8765
refresh_ms = 500

[inference]
horizon = 15

[verify]
mode = "proof"
"""


@pytest.mark.rows("training", "worldflux.toml")
def test_every_documented_section_is_read(tmp_path: Path) -> None:
    (tmp_path / "worldflux.toml").write_text(TOML)
    project = load_project(tmp_path)
    assert project.training_config().sequence_length == 50
    assert project.sections.data.source == "random"
    assert project.sections.online_collection.collect_steps_per_update == 2
    assert project.sections.visualization.refresh_ms == 500
    assert project.sections.verify.mode == "proof"


@pytest.mark.rows("training", "strict loader")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('colour = "red"\n' + TOML, "unknown key 'colour'"),
        (TOML + "colour = 1\n", r"unknown key 'colour' in \[verify\]"),
        (TOML.replace("tdmpc2:ci", "vjepa2:base"), "no model 'vjepa2:base'"),
    ],
)
def test_the_loader_is_strict(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "worldflux.toml").write_text(line)
    with pytest.raises(ProjectFileError, match=message):
        load_project(tmp_path)


@pytest.mark.rows("training", "environment")
def test_devices_follow_the_machine() -> None:
    """`CUDA_VISIBLE_DEVICES` empty hides every GPU, from "auto" too; models stand on the CPU."""
    code = (
        "from worldflux import create_world_model\n"
        "from worldflux.training.device import resolve_device\n"
        "print(create_world_model('tdmpc2:ci').device, resolve_device('auto'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout == "cpu cpu\n", done.stderr
