"""Where a run's time goes: every second counts once, in each row of metrics and over sessions."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from line_family import line_model

from worldflux import clock
from worldflux.data.replay import ReplayBuffer
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.run_log import read_rows
from worldflux.training import Trainer, TrainingConfig
from worldflux.training.callbacks import LoggingCallback


def test_a_second_counts_for_the_innermost_block(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 1.0, 3.0, 7.0, 15.0, 31.0])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(times))
    spent = clock.Spent()
    with spent.on("evaluation"), spent.on("acting"):
        pass
    assert spent.seconds() == {"other": 1.0 + 16.0, "evaluation": 2.0 + 8.0, "acting": 4.0}


def test_a_block_that_fails_ends() -> None:
    spent = clock.Spent()
    with pytest.raises(ZeroDivisionError), spent.on("learning"):
        _ = 1 / 0
    before = spent.seconds()["learning"]
    time.sleep(0.01)
    assert spent.seconds()["learning"] == before


def test_the_largest_shares_come_first_and_small_ones_are_left_out() -> None:
    seconds = {"learning": 60.0, "evaluation": 39.0, "saving": 1.0}
    assert clock.shares(seconds) == "learning 60 %, evaluation 39 %"
    assert clock.shares({}) == ""


def slow_evaluator(model: Any) -> EpisodeResults:
    time.sleep(0.3)
    return EpisodeResults(np.array([1.0]), np.array([1]))


def test_each_row_says_what_its_time_went_into(tmp_path: Path) -> None:
    config = TrainingConfig(
        total_steps=4, log_interval=2, eval_interval=2, output_dir=str(tmp_path), device="cpu"
    )
    log = LoggingCallback(tmp_path, log_to_console=False)
    trainer = Trainer(line_model(), config, [log], evaluator=slow_evaluator)
    buffer = ReplayBuffer(100, (3,), 1)
    buffer.add_episode(np.ones((21, 3)), np.ones((20, 1)), np.ones(20), np.zeros(20, bool))
    trainer.train(buffer)
    first, second = read_rows(tmp_path / "metrics.jsonl")
    for row in (first, second):
        shares = [value for name, value in row.items() if name.startswith("time/")]
        assert sum(shares) == pytest.approx(100)
    assert first.get("time/evaluation", 0) == 0  # its evaluation comes after it
    assert second["time/evaluation"] > 50
    assert first["time/learning"] > 0
