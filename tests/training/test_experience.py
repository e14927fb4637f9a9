"""What a model cannot learn as it is configured: noticed, counted, and refused while it can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from worldflux import Batch, ConfigurationError, WorldModel, create_world_model
from worldflux.training import ReplayBuffer, Trainer, TrainingConfig
from worldflux.training.callbacks import Callback
from worldflux.training.experience import ExperienceCheck, discounted_returns

SMALL = {"obs_shape": (3,), "action_dim": 1, "horizon": 2}


def td(**fields: Any) -> WorldModel:
    return create_world_model("tdmpc2:ci", **{**SMALL, **fields})


def dreamer(**fields: Any) -> WorldModel:
    return create_world_model("dreamer:ci", obs_shape=(3,), action_dim=1, batch_length=4, **fields)


def a_replay(rewards: list[float], *, terminated: bool = False, episodes: int = 4) -> ReplayBuffer:
    """Episodes with these rewards, cut by a time limit or ended by themselves."""
    buffer = ReplayBuffer(2_000, (3,), 1)
    count = len(rewards)
    done = np.arange(count) == count - 1
    for _ in range(episodes):
        buffer.add_episode(
            np.zeros((count + 1, 3), np.float32),
            np.zeros((count, 1), np.float32),
            np.array(rewards, np.float32),
            done,
            truncations=None if terminated else done,
        )
    return buffer


def batches(terminal_from: int, count: int = 6) -> list[Batch]:
    return [
        Batch(
            obs=torch.zeros(4, 3, 3),
            actions=torch.zeros(4, 3, 1),
            rewards=torch.zeros(4, 3),
            terminations=torch.full((4, 3), float(index >= terminal_from)),
        )
        for index in range(count)
    ]


class Told(Callback):
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def on_warning(self, trainer: Any, message: str) -> None:
        self.warnings.append(message)


def trained(model: WorldModel, data: Any, folder: Path, how: Any = None) -> tuple[Trainer, Told]:
    told = Told()
    config = TrainingConfig(
        total_steps=4, batch_size=4, device="cpu", output_dir=str(folder), on_unfit_data=how
    )
    trainer = Trainer(model, config, [told])
    trainer.train(data)
    return trainer, told


def test_terminations_without_a_termination_head_stop_before_the_first_update(
    tmp_path: Path,
) -> None:
    data = a_replay([1.0] * 5, terminated=True)
    with pytest.raises(ConfigurationError, match=r"terminated(.|\n)*episodic = true.*\"warn\""):
        trained(td(), data, tmp_path, "stop")
    assert not list(tmp_path.rglob("*.safetensors"))
    _, told = trained(td(), data, tmp_path / "warn")
    assert told.warnings[0].startswith("unfit_data: 4 episodes terminated")
    for model in (td(episodic=True), dreamer()):
        _, told = trained(model, data, tmp_path / model.config.model_type, "stop")
        assert told.warnings == []


def test_a_first_termination_later_on_stops_with_everything_saved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match="terminated"):
        trained(td(), batches(2), tmp_path, "stop")
    assert (tmp_path / "checkpoints" / "step-000000002").is_dir()
    config = TrainingConfig(total_steps=3, device="cpu", output_dir=str(tmp_path / "b"))
    alone = Trainer(td(), config)
    alone.train(batches(2))
    assert "unfit_data: 12 episodes terminated" in caplog.text  # where no callback reports it


@pytest.mark.parametrize(
    ("fields", "rewards", "expected"),
    [
        ({}, [1e6] + [0.0] * 4, "architecture.vmax = 19.0"),
        ({}, [-1e6] + [0.0] * 4, "architecture.vmin = -19.0"),
        ({"vmax": 1.0, "gamma": 0.975}, [1.0] * 6, "architecture.vmax = 4.0"),
        ({"vmax": 1.0, "vmin": -1.0}, [-5.0] + [0.0] * 3 + [5.0], "vmin = -7.0 and .*vmax = 7.0"),
    ],
)
def test_values_beyond_the_bins_stop_with_settings_that_hold_them(
    tmp_path: Path, fields: dict[str, float], rewards: list[float], expected: str
) -> None:
    data = a_replay(rewards)
    with pytest.raises(ConfigurationError, match=f"can represent(.|\n)*{expected}") as refused:
        trained(td(**fields), data, tmp_path, "stop")
    hint = str(refused.value.hint)
    settings = dict(
        part.strip().removeprefix("architecture.").split(" = ")
        for part in hint.removeprefix("set ").partition(", or")[0].split(" and ")
    )
    wider = {name: float(value) for name, value in settings.items()}
    _, told = trained(td(**{**fields, **wider}), data, tmp_path / "wider", "stop")
    assert told.warnings == []


def test_dreamers_linear_bins_are_watched_and_its_symlog_ones_hold_millions(tmp_path: Path) -> None:
    data = a_replay([100.0] * 5)
    linear = dreamer(use_symlog=False)
    with pytest.raises(ConfigurationError, match=r"20 rewards(.|\n)*reward_bin_max = 100\.0"):
        trained(linear, data, tmp_path, "stop")
    huge = dreamer()
    _, told = trained(huge, a_replay([1e6] * 5), tmp_path / "symlog", "stop")
    assert told.warnings == []


def test_later_values_are_counted_and_reported_when_they_grow_tenfold() -> None:
    check = ExperienceCheck(td(vmax=1.0).experience_limits(), "stop")
    buffer = ReplayBuffer(5_000, (3,), 1)
    told = []
    for _ in range(30):
        steps = 10
        done = np.arange(steps) == steps - 1
        zeros = np.zeros((steps + 1, 3), np.float32)
        rewards = np.zeros(steps, np.float32)
        rewards[3] = 5.0
        buffer.add_episode(zeros, zeros[1:, :1], rewards, done, truncations=done)
        source = type("Source", (), {"buffer": buffer})()
        told += check.look(source, None, before_learning=False)
        assert check.look(source, None, before_learning=False) == []  # nothing new
    assert check.rewards == 30
    assert check.returns == 30 * 4  # 5 discounted by 0.99 is beyond 1.7 for three steps more
    assert len(told) == 2
    assert "architecture.vmax = 7.0" in told[0]
    assert "30 rewards" in check.last_report()[0]
    assert check.last_report() == []


def test_returns_are_those_of_one_episode_only() -> None:
    rewards = np.array([1.0, 2.0, 4.0])
    assert discounted_returns(rewards, 0.5).tolist() == [3.0, 4.0, 4.0]
    check = ExperienceCheck(td(vmax=1.0, gamma=0.9).experience_limits(), "warn")
    source = type("Source", (), {"buffer": a_replay([0.9], episodes=50)})()
    assert check.look(source, None, before_learning=True) == []


def test_a_run_of_an_earlier_version_goes_on_and_says_so() -> None:
    check = ExperienceCheck(td().experience_limits(), "stop")
    check.start_over({})  # its training configuration knows of no such setting
    source = type("Source", (), {"buffer": a_replay([1.0] * 3, terminated=True)})()
    assert len(check.look(source, None, before_learning=False)) == 1
    check.start_over({"on_unfit_data": "stop"})
    with pytest.raises(ConfigurationError, match="terminated"):
        check.look(source, None, before_learning=False)
