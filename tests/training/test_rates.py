"""Rates in metrics.jsonl count training: not the warm-up, evaluations, or what was before."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from line_family import line_model

from worldflux.core.world_model import WorldModel
from worldflux.data.collector import Episode
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import ReplaySource, never
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.run_log import read_rows
from worldflux.training import Trainer, TrainingConfig
from worldflux.training.callbacks import LoggingCallback

WARMUP = 30


class SlowSource(ReplaySource):
    """Thirty slow steps before the first update, then a quick one for each; episodes of three."""

    def collect(
        self, model: WorldModel, update: int, stop: Callable[[], bool] = never
    ) -> list[Episode]:
        ended = []
        while not stop() and self.env_steps < WARMUP + update:
            time.sleep(0.02 if self.env_steps < WARMUP else 0.001)
            self.env_steps += 1
            if self.env_steps % 3 == 0:
                ended.append(Episode(float(self.env_steps), 3))
        return ended


def slow_evaluator(model: Any) -> EpisodeResults:
    time.sleep(0.2)
    return EpisodeResults(np.array([1.0]), np.array([1]))


def trained(folder: Path, steps: int, resume: bool) -> list[dict[str, Any]]:
    config = TrainingConfig(
        total_steps=steps, log_interval=1, eval_interval=1, save_interval=3,
        output_dir=str(folder), device="cpu",
    )  # fmt: skip
    log = LoggingCallback(folder, log_to_console=False)
    trainer = Trainer(line_model(), config, [log], evaluator=slow_evaluator)
    buffer = ReplayBuffer(100, (3,), 1)
    buffer.add_episode(np.ones((21, 3)), np.ones((20, 1)), np.ones(20), np.zeros(20, bool))
    source = SlowSource(buffer)
    source.env_steps = WARMUP + 2 if resume else 0
    trainer.train(source, resume_from="last" if resume else None)
    return list(read_rows(folder / "metrics.jsonl"))


def test_rates_count_neither_warmup_nor_evaluation_nor_what_was_before_a_resume(
    tmp_path: Path,
) -> None:
    first = trained(tmp_path, 3, resume=False)
    rows = trained(tmp_path, 6, resume=True)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    # Counted with its evaluation an update would take 0.2 s, the first one 0.8 s with its warm-up.
    assert statistics.median(row["rate/updates_per_s"] for row in rows) > 20
    assert first[0]["rate/env_steps_per_s"] == 0.0  # no step was due between warm-up and update
    for row in rows[1:]:
        assert row["rate/env_steps_per_s"] == row["rate/updates_per_s"]


def test_the_length_of_training_episodes_is_logged(tmp_path: Path) -> None:
    rows = trained(tmp_path, 3, resume=False)
    assert rows[0]["train/episode_length"] == 3
    assert [row["step"] for row in rows if "train/episode_return" in row] == [
        row["step"] for row in rows if "train/episode_length" in row
    ]
