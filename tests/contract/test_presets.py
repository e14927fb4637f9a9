"""The older reference: its presets, spellings and examples under the present package name."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from worldflux import create_world_model, get_config
from worldflux.layout import cache_folder
from worldflux.training import TrainingConfig
from worldflux.training.callbacks import (
    CheckpointCallback,
    EarlyStoppingCallback,
    LoggingCallback,
)

DREAMER = {
    "obs_shape": (3, 64, 64),
    "action_dim": 18,
    "deter_dim": 2048,
    "stoch_dim": 1024,
    "num_categories": 32,
    "cnn_depth": 48,
    "mlp_layers": 5,
    "hidden_dim": 640,
    "kl_balance": 0.8,
    "kl_free": 1.0,
}
CONFIG_JSON = """
{
    "model_type": "dreamerv3",
    "obs_shape": [3, 64, 64],
    "action_dim": 18,
    "deter_dim": 4096,
    "stoch_dim": 1024,
    "num_categories": 32,
    "cnn_depth": 48,
    "mlp_layers": 5
}
"""
OLDER_NAMES = r"older spelling; write '(stoch_classes|num_mlp_layers|model_type = dreamer)'"


@pytest.mark.rows("presets", "DreamerV3Config", "examples")
def test_dreamer_example() -> None:
    from worldflux.models.dreamerv3 import DreamerV3Config

    with pytest.warns(DeprecationWarning, match=OLDER_NAMES) as told:
        config = DreamerV3Config(
            # Required
            obs_shape=(3, 64, 64),
            action_dim=18,
            # Latent dimensions
            deter_dim=2048,
            stoch_dim=1024,
            num_categories=32,
            # Network architecture
            cnn_depth=48,
            mlp_layers=5,
            hidden_dim=640,
            # Training
            kl_balance=0.8,
            kl_free=1.0,
        )
    assert len(told) == 2  # one for each older name
    assert (config.stoch_discrete, config.stoch_classes, config.stoch_dim) == (32, 32, 1024)
    assert config.num_mlp_layers == 5
    kept = ("obs_shape", "action_dim", "deter_dim", "cnn_depth", "hidden_dim", "kl_free")
    assert {name: getattr(config, name) for name in kept} == {n: DREAMER[n] for n in kept}
    scales = config.resolved_loss_scales
    assert scales["kl_dynamics"] == pytest.approx(0.8 * 0.6)
    assert scales["kl_representation"] == pytest.approx(0.2 * 0.6)


@pytest.mark.rows("presets", "TDMPC2Config", "examples")
def test_tdmpc2_example() -> None:
    from worldflux.models.tdmpc2 import TDMPC2Config

    with pytest.warns(DeprecationWarning, match="'(num_q_networks|num_hidden_layers)'"):
        config = TDMPC2Config(
            # Required
            obs_shape=(39,),
            action_dim=6,
            # Latent dimensions
            latent_dim=512,
            # Network architecture
            num_q=5,
            mlp_layers=2,
            hidden_dim=512,
        )
    assert (config.num_q_networks, config.num_hidden_layers) == (5, 2)
    assert (config.obs_shape, config.action_dim) == ((39,), 6)
    assert (config.latent_dim, config.hidden_dim) == (512, 512)


@pytest.mark.rows("presets", "examples")
def test_from_size_examples() -> None:
    from worldflux.models.dreamerv3 import DreamerV3Config
    from worldflux.models.tdmpc2 import TDMPC2Config

    config: Any = DreamerV3Config.from_size(
        "size50m",
        obs_shape=(3, 64, 64),
        action_dim=18,
    )
    assert (config.action_dim, config.deter_dim) == (18, 4096)

    config = TDMPC2Config.from_size(
        "19m",
        obs_shape=(39,),
        action_dim=6,
    )
    assert (config.obs_shape, config.latent_dim) == ((39,), 512)


@pytest.mark.parametrize(
    ("name", "older", "today"),
    [
        ("dreamer:ci", {"mlp_layers": 2}, {"num_mlp_layers": 2}),
        ("dreamer:ci", {"num_categories": 8}, {"stoch_classes": 8, "stoch_discrete": 4}),
        ("dreamer:ci", {"model_type": "dreamerv3"}, {"model_type": "dreamer"}),
        ("tdmpc2:ci", {"num_q": 3}, {"num_q_networks": 3}),
        ("tdmpc2:ci", {"mlp_layers": 3}, {"num_hidden_layers": 3}),
    ],
)
def test_constructor_from_dict_and_factory_take_the_older_names(
    name: str, older: dict[str, Any], today: dict[str, Any]
) -> None:
    family = type(get_config(name))
    with pytest.warns(DeprecationWarning, match="older spelling"):
        built = family(**older)
    with pytest.warns(DeprecationWarning, match="older spelling"):
        read = family.from_dict(older)
    with pytest.warns(DeprecationWarning, match="older spelling"):
        sized = family.from_size("ci", **older)
    with pytest.warns(DeprecationWarning, match="older spelling"):
        model = create_world_model(name, **older)
    for field, value in today.items():
        assert getattr(sized, field) == getattr(model.config, field) == value
        if field != "stoch_discrete":  # without a stoch_dim the groups are the default's
            assert getattr(built, field) == getattr(read, field) == value
    assert not older.keys() - {"model_type"} & built.to_dict().keys()  # stored canonically


def test_an_older_name_beside_todays_must_agree() -> None:
    with pytest.warns(DeprecationWarning, match="older"), pytest.raises(ValueError, match="num_q"):
        get_config("tdmpc2:ci", num_q=3, num_q_networks=4)
    with (
        pytest.warns(DeprecationWarning, match="older"),
        pytest.raises(ValueError, match="num_categories"),
    ):
        get_config("dreamer:ci", num_categories=8, stoch_classes=4)
    with (
        pytest.warns(DeprecationWarning, match="older"),
        pytest.raises(ValueError, match="multiple"),
    ):
        get_config("dreamer:ci", stoch_dim=30, num_categories=8)


@pytest.mark.rows("presets", "TrainingConfig", "TrainingConfig example")
def test_training_config_example() -> None:
    config = TrainingConfig(
        # Duration
        total_steps=100_000,
        # Batch settings
        batch_size=16,
        sequence_length=50,
        # Optimizer
        learning_rate=3e-4,
        weight_decay=0.0,
        grad_clip=100.0,
        warmup_steps=0,
        # Logging
        log_interval=1000,
        eval_interval=5000,
        save_interval=10000,
        # Device
        device="cuda",
        seed=42,
    )
    assert (config.log_interval, config.eval_interval, config.device) == (1000, 5000, "cuda")
    # The guide's defaults win over the older reference's (log and evaluation intervals, device).
    defaults = TrainingConfig()
    unchanged = {"total_steps", "batch_size", "sequence_length", "learning_rate", "weight_decay"}
    unchanged |= {"grad_clip", "warmup_steps", "save_interval", "seed"}
    for name in unchanged:
        assert getattr(defaults, name) == getattr(config, name)


def defaults_of(callback: type) -> dict[str, Any]:
    parameters = inspect.signature(callback).parameters
    return {
        name: parameter.default
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    }


@pytest.mark.rows("presets", "CheckpointCallback", "LoggingCallback", "EarlyStoppingCallback")
def test_callback_arguments_and_defaults() -> None:
    assert defaults_of(CheckpointCallback) == {
        "save_dir": inspect.Parameter.empty,
        "save_every": 10000,
        "keep_last": 3,
        "save_best": True,
        "monitor": "loss",
    }
    assert defaults_of(LoggingCallback) == {
        "log_dir": None,
        "log_to_console": True,
        "log_to_tensorboard": False,
    }
    assert defaults_of(EarlyStoppingCallback) == {
        "monitor": "loss",
        "patience": 5000,
        "min_delta": 1e-4,
        "mode": "min",
    }


@pytest.mark.rows("presets", "callback examples")
def test_callback_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    callback: Any = CheckpointCallback(
        save_dir="./checkpoints",
        save_every=10000,
        keep_last=3,
        save_best=True,
        monitor="loss",
    )
    assert callback.save_dir == Path("checkpoints")
    callback = LoggingCallback(
        log_dir="./logs",
        log_to_console=True,
        log_to_tensorboard=True,
    )
    assert callback.log_dir == Path("logs")
    callback = EarlyStoppingCallback(
        monitor="loss",
        patience=5000,
        min_delta=1e-4,
        mode="min",
    )
    assert callback.patience == 5000
    with pytest.raises(ValueError, match="mode"):
        EarlyStoppingCallback(mode="lowest")  # type: ignore[arg-type]


@pytest.mark.rows("presets", "environment")
def test_environment_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLDFLUX_CACHE_DIR", raising=False)
    for variable in ("WORLDLOOM_CACHE_DIR", "WORLDFLUX_CACHE_DIR"):  # today's name wins
        monkeypatch.setenv(variable, str(tmp_path / variable))
        assert cache_folder() == tmp_path / variable
    done = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout == "0\n"


@pytest.mark.rows("presets", "config.json", "loading")
def test_saved_model_config_and_loading_custom_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worldflux import WorldModelConfig
    from worldflux.models.dreamerv3 import DreamerV3Config, DreamerV3WorldModel

    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(CONFIG_JSON)

    # From dict
    config_dict = json.loads(CONFIG_JSON)
    with pytest.warns(DeprecationWarning, match=OLDER_NAMES):
        config = DreamerV3Config(**config_dict)

    # From JSON file
    with open("config.json") as f, pytest.warns(DeprecationWarning, match=OLDER_NAMES):
        config = DreamerV3Config(**json.load(f))

    with pytest.warns(DeprecationWarning, match=OLDER_NAMES):
        loaded = WorldModelConfig.load("config.json")
    assert loaded == config
    assert (config.model_type, config.deter_dim, config.cnn_depth) == ("dreamer", 4096, 48)
    assert (config.stoch_discrete, config.stoch_classes, config.num_mlp_layers) == (32, 32, 5)
    assert dataclasses.asdict(config)["action_dim"] == 18

    with torch.device("meta"):  # a hundred million parameters need no memory here
        model = DreamerV3WorldModel(config)
    assert model.config is config
