"""Calls as earlier versions showed them work, or say what to write today."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_family import line_model

from worldflux import ConfigurationError, create_world_model
from worldflux.training import ReplayBuffer, Trainer, TrainingConfig, train
from worldflux.training.callbacks import Callback


def a_buffer() -> ReplayBuffer:
    buffer = ReplayBuffer(200, (3,), 1)
    rng = np.random.default_rng(0)
    for _ in range(4):
        buffer.add_episode(
            rng.random((31, 3), np.float32),
            rng.random((30, 1), np.float32),
            rng.random(30, np.float32),
            np.arange(30) == 29,
        )
    return buffer


def test_train_takes_settings_and_the_result_of_a_trainer_saves(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"device": "cpu", "output_dir": str(tmp_path / "a")}
    model = train(line_model(), a_buffer(), total_steps=2, **settings)
    assert (tmp_path / "a" / "checkpoints" / "step-000000002").is_dir()
    with pytest.raises(ConfigurationError, match="no field 'total_step'"):
        train(model, a_buffer(), total_step=2)
    trainer = Trainer(model, TrainingConfig(total_steps=2, **settings), callbacks=None)
    result = trainer.train(a_buffer(), num_steps=1)
    assert result.model is model
    assert result.model is not None
    result.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "model.safetensors").is_file()


def test_evaluate_gives_the_losses_of_data_and_changes_nothing(tmp_path: Path) -> None:
    config = TrainingConfig(device="cpu", batch_size=4, output_dir=str(tmp_path))
    trainer = Trainer(line_model(), config)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    losses = trainer.evaluate(a_buffer(), num_batches=2)
    assert losses["loss"] > 0
    assert losses == trainer.evaluate(a_buffer(), num_batches=2)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, before[name])
    with pytest.raises(ConfigurationError, match="num_batches = 0 is not allowed"):
        trainer.evaluate(a_buffer(), num_batches=0)
    with pytest.raises(ConfigurationError, match="has no evaluator"):
        trainer.evaluate()


def test_a_callback_whose_hooks_take_other_arguments_is_refused_before_training() -> None:
    class Older(Callback):
        def on_step_end(self, trainer: Any) -> None:  # type: ignore[override]
            """Without metrics."""

    class Wide(Callback):
        def on_step_end(self, *args: Any) -> None:
            """Takes anything."""

    expected = r"Older\.on_step_end\(self, t.*\n.*def on_step_end\(self, trainer, metrics\)"
    config = TrainingConfig(device="cpu")
    with pytest.raises(ConfigurationError, match=expected):
        Trainer(line_model(), config, callbacks=[Older()])
    trainer = Trainer(line_model(), config, callbacks=[Wide()])
    with pytest.raises(ConfigurationError, match=expected):
        trainer.add_callback(Older())
    with pytest.raises(ConfigurationError, match="int is not a Callback"):
        trainer.add_callback(3)  # type: ignore[arg-type]


def test_former_names_say_what_to_write_today() -> None:
    model: Any = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)
    output: Any = model.decode(model.encode(torch.rand(1, 3)))
    config: Any = TrainingConfig()
    for owner, name, today in (
        (output, "preds", "predictions"),
        (model, "update", "observe"),
        (config, "with_updates", "with_overrides"),
    ):
        assert not hasattr(owner, name)
        with pytest.raises(AttributeError, match=f"no attribute '{name}': it is now {today}"):
            getattr(owner, name)
        with pytest.raises(AttributeError, match=r"no attribute 'nothing_like_it'$"):
            owner.nothing_like_it  # noqa: B018
