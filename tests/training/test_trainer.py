"""The Trainer through its public door: counters, recipes, accumulation, schedules, resume."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_family import line_model

from worldflux.core.batch import Batch
from worldflux.core.learning import set_seed
from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import CollectionSchedule, OnlineSource
from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import CheckpointError, ConfigurationError, TrainingError
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.run_log import read_rows
from worldflux.training import Trainer, TrainingConfig, train
from worldflux.training.callbacks import (
    Callback,
    CheckpointCallback,
    EarlyStoppingCallback,
    LoggingCallback,
)
from worldflux.training.update import learning_rate_factor


def line_replay(seed: int = 0) -> ReplayBuffer:
    """Episodes of a noiseless linear system, which the line family can fit."""
    rng = np.random.default_rng(seed)
    buffer = ReplayBuffer(2000, (3,), 1, seed=seed)
    matrix = np.array([[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [0.1, 0.0, 0.7]])
    for _ in range(20):
        obs = [rng.standard_normal(3)]
        actions = rng.uniform(-1, 1, (20, 1))
        for action in actions:
            obs.append(matrix @ obs[-1] + action)
        rewards = np.array([o.sum() for o in obs[1:]])
        done = np.zeros(20, bool)
        done[-1] = True
        buffer.add_episode(np.array(obs), actions, rewards, done, truncations=done)
    return buffer


def config(folder: Path, **values: Any) -> TrainingConfig:
    settings = {"total_steps": 60, "save_interval": 20, "eval_interval": 30, "device": "cpu"}
    return TrainingConfig(**{**settings, **values, "output_dir": str(folder)})


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_the_loss_falls_and_counters_agree(tmp_path: Path) -> None:
    set_seed(0)
    trainer = Trainer(line_model(), config(tmp_path, total_steps=300))
    losses: list[float] = []

    class Watch(Callback):
        def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            losses.append(metrics["loss/prediction"])

    trainer.add_callback(Watch())
    result = trainer.train(line_replay())
    assert result.step == len(losses) == 300
    assert np.mean(losses[-20:]) < 0.05 * np.mean(losses[:5])


def test_num_steps_counts_from_where_it_stands(tmp_path: Path) -> None:
    trainer = Trainer(line_model(), config(tmp_path))
    assert trainer.train(line_replay(), num_steps=7).step == 7
    assert trainer.train(line_replay(), num_steps=5).step == 12


def test_what_was_not_set_follows_the_family(tmp_path: Path) -> None:
    trainer = Trainer(line_model(), config(tmp_path))
    assert (trainer.resolved.batch_size, trainer.resolved.sequence_length) == (8, 3)
    assert trainer.phases[0].grad_clip == 10.0
    chosen = Trainer(line_model(), config(tmp_path, batch_size=16, grad_clip=100.0))
    assert chosen.resolved.batch_size == 16  # equal to a default, but chosen
    assert chosen.phases[0].grad_clip == 100.0


def test_accumulated_gradients_equal_the_large_batch(tmp_path: Path) -> None:
    batch = line_replay().sample(10, 3)
    results = []
    for parts in (1, 3, 10):
        set_seed(1)
        settings = config(tmp_path / str(parts), gradient_accumulation_steps=parts)
        trainer = Trainer(line_model(), settings)
        trainer.train([batch], num_steps=5)
        results.append(weights(trainer))
    assert torch.allclose(results[0], results[1], atol=1e-6)
    assert torch.allclose(results[0], results[2], atol=1e-6)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("none", [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]),
        ("linear", [0.25, 0.5, 0.75, 1.0, 1.0, 0.5]),
        ("cosine", [0.25, 0.5, 0.75, 1.0, 1.0, 0.5]),
    ],
)
def test_schedules_follow_their_formula(scheduler: str, expected: list[float]) -> None:
    settings = TrainingConfig(warmup_steps=4, scheduler=scheduler)
    factor = learning_rate_factor(settings, total_steps=24)
    assert [factor(update) for update in (0, 1, 2, 3, 4, 14)] == pytest.approx(expected)


def test_the_scheduled_rate_reaches_the_optimiser(tmp_path: Path) -> None:
    trainer = Trainer(line_model(), config(tmp_path, warmup_steps=10, learning_rate=0.1))
    trainer.train(line_replay(), num_steps=5)
    assert trainer.phases[0].optimizer.param_groups[0]["lr"] == pytest.approx(0.05)


def test_a_non_finite_loss_stops_before_the_step(tmp_path: Path) -> None:
    trainer = Trainer(line_model(), config(tmp_path))
    trainer.train(line_replay(), num_steps=3)
    before = weights(trainer)
    batch = line_replay().sample(4, 3)
    batch.rewards[0, 1] = math.nan
    with pytest.raises(TrainingError, match="loss/line became nan"):
        trainer.train([batch], num_steps=1)
    assert torch.equal(weights(trainer), before)


def test_the_average_is_what_is_evaluated_and_saved(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []

    def evaluator(model: Any) -> EpisodeResults:
        seen.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
        return EpisodeResults(np.zeros(2), np.ones(2, np.int64))

    settings = config(tmp_path, ema_decay=0.5, total_steps=4, eval_interval=4)
    trainer = Trainer(line_model(), settings, evaluator=evaluator)
    expected = weights(trainer)

    class Average(Callback):
        def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            nonlocal expected
            expected = 0.5 * expected + 0.5 * weights(trainer)

    trainer.add_callback(Average())
    trainer.train(line_replay())
    assert torch.allclose(seen[0], expected, atol=1e-6)
    assert not torch.allclose(weights(trainer), expected, atol=1e-4)
    again = Trainer(line_model(), settings)
    again.load_checkpoint()
    assert torch.equal(weights(again), weights(trainer))
    assert again.average is not None
    saved = torch.cat([t.flatten() for t in again.average.tensors.values()])
    assert torch.allclose(saved, expected, atol=1e-6)


def online(seed: int) -> OnlineSource:
    envs = VectorEnvironment("Pendulum-v1", lambda i: make_environment("Pendulum-v1"), 2)
    buffer = ReplayBuffer(500, (3,), 1, num_envs=2, seed=seed)
    return OnlineSource(Collector(envs, buffer, seed), CollectionSchedule(20, 5, 2.0))


def test_experience_is_collected_on_schedule(tmp_path: Path) -> None:
    source = online(seed=0)
    trainer = Trainer(line_model(), config(tmp_path, total_steps=30))
    assert trainer.train(source).env_steps == 20 + (29 - 5) * 2


def test_resumed_it_continues_with_counters_data_and_streams(tmp_path: Path) -> None:
    set_seed(5)
    first = Trainer(line_model(), config(tmp_path, total_steps=40))
    first.train(online(seed=1), num_steps=20)
    drawn = torch.rand(3)
    set_seed(99)
    second = Trainer(line_model(), config(tmp_path, total_steps=40))
    source = online(seed=2)
    second.attach(source)
    second.load_checkpoint()
    assert torch.equal(weights(second), weights(first))
    assert torch.equal(torch.rand(3), drawn)
    assert second.step == 20
    assert source.buffer.steps_written > 20
    result = second.train(source)
    assert result.step == 40
    assert result.env_steps >= 20 + (39 - 5) * 2


def test_a_replay_buffer_resumes_bit_identical(tmp_path: Path) -> None:
    set_seed(7)
    whole = Trainer(line_model(), config(tmp_path / "whole", total_steps=40))
    whole.train(line_replay())
    set_seed(7)
    half = Trainer(line_model(), config(tmp_path / "halves", total_steps=40))
    half.train(line_replay(), num_steps=20)
    set_seed(1234)
    resumed = Trainer(line_model(), config(tmp_path / "halves", total_steps=40))
    resumed.train(line_replay(seed=9), resume_from="last")
    assert torch.equal(weights(resumed), weights(whole))


def test_the_best_checkpoint_outlives_pruning(tmp_path: Path) -> None:
    scores = iter([1.0, 9.0, 3.0, 2.0, 4.0, 5.0, 6.0])

    def evaluator(model: Any) -> EpisodeResults:
        return EpisodeResults(np.full(2, next(scores)), np.ones(2, np.int64))

    settings = config(tmp_path, total_steps=70, eval_interval=10, save_interval=10)
    trainer = Trainer(line_model(), settings, evaluator=evaluator)
    trainer.train(line_replay())
    assert trainer.best == {"step": 20, "return_mean": 9.0}
    assert trainer.store.steps() == [20, 50, 60, 70]


def test_a_return_to_an_early_checkpoint_is_what_counts_afterwards(tmp_path: Path) -> None:
    first = Trainer(line_model(), config(tmp_path, save_interval=10))
    first.train(line_replay(), 40)
    first.load_checkpoint(tmp_path / "checkpoints" / "step-000000020")
    first.train(line_replay(), 5)
    assert first.store.steps() == [20, 25]
    later = Trainer(line_model(), config(tmp_path, save_interval=10))
    later.load_checkpoint("last")
    assert later.step == 25


def test_a_damaged_newest_checkpoint_is_told_and_the_one_before_is_used(tmp_path: Path) -> None:
    trainer = Trainer(line_model(), config(tmp_path))
    trainer.train(line_replay())
    newest = trainer.store.path(60) / "model.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    told: list[str] = []

    class Listen(Callback):
        def on_warning(self, trainer: Trainer, message: str) -> None:
            told.append(message)

    again = Trainer(line_model(), config(tmp_path), [Listen()])
    again.load_checkpoint()
    assert again.step == 40
    assert "model.safetensors" in told[0]
    with pytest.raises(CheckpointError, match="damaged"):
        again.load_checkpoint(newest.parent)


def test_logged_rows_tell_rates_and_losses(tmp_path: Path) -> None:
    trainer = Trainer(
        line_model(),
        config(tmp_path, log_interval=10),
        [LoggingCallback(tmp_path, log_to_console=False)],
    )
    trainer.train(line_replay())
    rows = list(read_rows(tmp_path / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert all(row["loss/prediction"] > 0 and row["rate/updates_per_s"] > 0 for row in rows)
    assert all(row["system/processor_cores"] > 0 for row in rows)
    if Path("/proc/self/statm").exists():
        assert all(0.01 < row["system/memory_gib"] < 1000 for row in rows)


def test_early_stopping_waits_for_its_patience(tmp_path: Path) -> None:
    flat = [line_replay().sample(4, 3)]
    stop = EarlyStoppingCallback(monitor="loss", patience=15, min_delta=1e9)
    trainer = Trainer(line_model(), config(tmp_path, total_steps=100), [stop])
    result = trainer.train(flat)
    assert result.step == 16  # the first value always counts as an improvement
    assert result.stopped_early


def test_checkpoint_callback_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    callback = CheckpointCallback(tmp_path / "kept", save_every=10, keep_last=2, monitor="loss")
    Trainer(line_model(), config(tmp_path / "run"), [callback]).train(line_replay())
    names = sorted(path.name for path in (tmp_path / "kept").iterdir())
    assert names == ["best", "step-000000050", "step-000000060"]


def test_checkpoint_callback_keeps_the_last_after_a_return_a_restart_and_a_removal(
    tmp_path: Path,
) -> None:
    kept, run = tmp_path / "kept", tmp_path / "run"

    def trainer() -> Trainer:
        callback = CheckpointCallback(kept, save_every=10, keep_last=2, save_best=False)
        return Trainer(line_model(), config(run, save_interval=10), [callback])

    def steps() -> list[int]:
        return sorted(int(path.name.removeprefix("step-")) for path in kept.iterdir())

    first = trainer()
    first.train(line_replay(), 30)
    first.load_checkpoint(run / "checkpoints" / "step-000000020")
    first.train(line_replay(), 20)
    assert steps() == [30, 40]
    second = trainer()  # in another process
    second.train(line_replay(), 10, resume_from="last")
    assert steps() == [40, 50]
    shutil.rmtree(kept / "step-000000050")  # by the user
    second.train(line_replay(), 20)
    assert steps() == [60, 70]


def test_an_unknown_metric_to_monitor_is_told(tmp_path: Path) -> None:
    stop = EarlyStoppingCallback(monitor="loss/predicton")
    with pytest.raises(ConfigurationError, match="no metric") as caught:
        Trainer(line_model(), config(tmp_path), [stop]).train(line_replay())
    assert "loss/prediction" in (caught.value.hint or "")


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"min_delta": -1.0}, {"mode": "most"}])
def test_early_stopping_refuses_what_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="min_delta >= 0"):
        EarlyStoppingCallback(**wrong)


def test_train_builds_a_model_by_name_with_its_overrides(tmp_path: Path) -> None:
    overrides = {"obs_shape": [3], "action_dim": 1, "horizon": 2, "num_samples": 64}
    settings = config(tmp_path, total_steps=2, model_overrides=overrides)
    model = train("tdmpc2:ci", line_replay(), settings)
    assert model.config.horizon == 2


def test_batches_of_another_shape_are_refused_by_name() -> None:
    batch = line_replay().sample(4, 3)
    with pytest.raises(ValueError, match="actions"):
        Batch(batch.obs, batch.actions[:2], batch.rewards, batch.terminations).validate()


def test_a_callback_hears_the_warnings_that_came_before_it(tmp_path: Path) -> None:
    trainer = Trainer(line_model(), TrainingConfig(output_dir=str(tmp_path), device="cpu"))
    trainer.warn("too early")
    heard: list[str] = []

    class Listens(Callback):
        def on_warning(self, trainer: Trainer, message: str) -> None:
            heard.append(message)

    trainer.add_callback(Listens())
    trainer.warn("in time")
    assert heard == ["too early", "in time"]
