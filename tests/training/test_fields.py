"""Each field of TrainingConfig does what it says (other modules here test the larger ones)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_family import line_model
from torch import Tensor

from worldflux import create_world_model
from worldflux.core.batch import Batch
from worldflux.core.learning import LearningOverrides
from worldflux.data.sources import ReplaySource
from worldflux.errors import ConfigurationError
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.nn import ClippedAdam, LaProp
from worldflux.training import ReplayBuffer, Trainer, TrainingConfig, train
from worldflux.training.callbacks import Callback
from worldflux.training.update import Updater


def a_replay() -> ReplayBuffer:
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(1000, (3,), 1, seed=0)
    for _ in range(5):
        ends = np.arange(40) == 39
        buffer.add_episode(
            rng.standard_normal((41, 3)), rng.uniform(-1, 1, (40, 1)),
            rng.standard_normal(40), ends, truncations=ends,
        )  # fmt: skip
    return buffer


def config(folder: Path, **values: Any) -> TrainingConfig:
    return TrainingConfig(
        **{"total_steps": 6, "device": "cpu", **values, "output_dir": str(folder)}
    )


class Watch(Callback):
    def __init__(self) -> None:
        self.saved: list[int] = []
        self.evaluated: list[int] = []
        self.rates: list[float] = []

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        self.saved.append(trainer.step)

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        self.evaluated.append(trainer.step)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self.rates.append(trainer.phases[0].optimizer.param_groups[0]["lr"])


def weights(model: Any) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def test_total_steps_intervals_and_folder(tmp_path: Path) -> None:
    watch = Watch()
    settings = config(tmp_path / "here", total_steps=7, save_interval=3, eval_interval=2)
    flat = EpisodeResults(np.zeros(1), np.ones(1, np.int64))
    trainer = Trainer(line_model(), settings, [watch], evaluator=lambda model: flat)
    assert trainer.train(a_replay()).step == 7
    assert watch.evaluated == [2, 4, 6, 7]
    assert watch.saved == [2, 3, 6, 7]  # 2: the first evaluation is the best so far
    assert (tmp_path / "here" / "checkpoints" / "step-000000007").is_dir()


def test_batch_size_and_sequence_length(tmp_path: Path) -> None:
    shapes: list[torch.Size] = []

    class Noted(ReplaySource):
        def sample(self, *args: Any, **kwargs: Any) -> Batch:
            shapes.append((batch := super().sample(*args, **kwargs)).rewards.shape)
            return batch

    settings = config(tmp_path, batch_size=5, sequence_length=4, total_steps=1)
    Trainer(line_model(), settings).train(Noted(a_replay()))
    assert shapes == [(5, 4)]


@pytest.mark.parametrize("scheduler", ["none", "linear", "cosine"])
def test_rate_warmup_and_schedule_reach_every_update(tmp_path: Path, scheduler: str) -> None:
    watch = Watch()
    settings = config(
        tmp_path, total_steps=12, learning_rate=0.01, warmup_steps=4, scheduler=scheduler
    )
    Trainer(line_model(), settings, [watch]).train(a_replay())
    expected = []
    for n in range(12):
        progress = (n - 4) / 8
        after = {
            "none": 1,
            "linear": 1 - progress,
            "cosine": (1 + math.cos(math.pi * progress)) / 2,
        }
        expected.append(0.01 * ((n + 1) / 4 if n < 4 else after[scheduler]))
    assert watch.rates == pytest.approx(expected)


KINDS: dict[str, dict[str, type]] = {
    # DreamerV3 clips its three learners apart, in one class for both kinds of Adam.
    "dreamer:ci": {"adam": ClippedAdam, "adamw": ClippedAdam, "laprop": LaProp},
    "tdmpc2:ci": {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "laprop": LaProp},
}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "laprop"])
@pytest.mark.parametrize("name", KINDS)
def test_optimizer_and_weight_decay(tmp_path: Path, name: str, optimizer: str) -> None:
    model = create_world_model(name, obs_shape=(3,), action_dim=1)
    trainer = Trainer(model, config(tmp_path, optimizer=optimizer, weight_decay=0.125))
    for phase in trainer.phases:
        assert type(phase.optimizer) is KINDS[name][optimizer]
        assert {group["weight_decay"] for group in phase.optimizer.param_groups} == {0.125}


def test_grad_clip_bounds_the_step(tmp_path: Path) -> None:
    moves = []
    for clip in (0.01, 1e6):
        torch.manual_seed(0)
        model = line_model()
        before = weights(model)
        settings = config(tmp_path / str(clip), grad_clip=clip, total_steps=1)
        Trainer(model, settings).train(a_replay())
        moves.append(float((weights(model) - before).norm()))
    assert moves[0] == pytest.approx(1e-2 * 0.01, rel=0.01)  # rate times clip: plain SGD
    assert moves[1] > 5 * moves[0]


def test_the_seed_decides_the_run_whatever_came_before(tmp_path: Path) -> None:
    def trained(seed: int, before: int) -> Tensor:
        torch.manual_seed(before)
        overrides = {"obs_shape": [3], "action_dim": 1, "horizon": 2}
        settings = config(
            tmp_path / f"{seed}-{before}", seed=seed, total_steps=3, batch_size=4,
            model_overrides=overrides,
        )  # fmt: skip
        return weights(train("tdmpc2:ci", a_replay(), settings))

    assert torch.equal(trained(1, before=7), trained(1, before=8))
    assert not torch.equal(trained(1, before=7), trained(2, before=7))


def test_a_trainer_of_ones_own_is_seeded_too(tmp_path: Path) -> None:
    def trained(seed: int, folder: str) -> Tensor:
        torch.manual_seed(0)
        model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)  # draws dropout
        torch.manual_seed(len(folder))
        settings = config(tmp_path / folder, seed=seed, total_steps=2, batch_size=4)
        Trainer(model, settings).train(a_replay())
        return weights(model)

    assert torch.equal(trained(3, "a"), trained(3, "another"))
    assert not torch.equal(trained(3, "b"), trained(4, "b"))


def test_device_and_backend_are_checked_at_the_start(tmp_path: Path) -> None:
    assert Trainer(line_model(), config(tmp_path)).model.device == torch.device("cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigurationError, match="'cuda:7' is not available"):
            Trainer(line_model(), config(tmp_path, device="cuda:7"))
    with pytest.raises(ConfigurationError, match="native_torch") as caught:
        Trainer(line_model(), config(tmp_path, backend="official_tdmpc2_torch_subprocess"))
    assert "create_world_model" in str(caught.value)


DETERMINISTIC: dict[str, dict[str, Any]] = {
    # Modes instead of draws; a policy without spread; no dropout: parts of a batch then add up.
    "dreamer:ci": {"actor_critic": False},
    "tdmpc2:ci": {"dropout": 0.0, "log_std_min": -31.0, "log_std_max": -30.0},
}


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_accumulated_gradients_are_those_of_the_large_batch(name: str) -> None:
    shapes = {"obs_shape": (3,), "action_dim": 1}
    gradients = []
    for parts in (1, 2, 4):
        torch.manual_seed(0)
        model = create_world_model(name, **shapes, **DETERMINISTIC[name])
        model.sampling = False
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        batch = a_batch(model)
        phase = model.phases(LearningOverrides(grad_clip=1e9))[0]
        settings = TrainingConfig(gradient_accumulation_steps=parts)
        metrics, _ = Updater(model, [phase], settings).update(batch, 0.0)  # rate 0: no move
        gradients.append(
            torch.cat([p.grad.flatten() for p in phase.parameters if p.grad is not None])
        )
        assert math.isfinite(metrics["loss/model"])
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


def a_batch(model: Any) -> Batch:
    length = 6 if model.config.model_type == "dreamer" else model.config.horizon + 1
    generator = torch.Generator().manual_seed(5)
    return Batch(
        obs=torch.randn(8, length, 3, generator=generator),
        actions=torch.rand(8, length, 1, generator=generator) * 2 - 1,
        rewards=torch.randn(8, length, generator=generator),
        terminations=torch.zeros(8, length, dtype=torch.bool),
    )
