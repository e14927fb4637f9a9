"""heartbeat.json: the phase of a run, and a sane estimate long before the first log row."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from worldflux.training import progress_callback
from worldflux.training.progress_callback import HEARTBEAT, Heartbeat


def told(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / HEARTBEAT).read_text())
    return content


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    hand = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress_callback, "time", SimpleNamespace(monotonic=lambda: hand.now))
    return hand


def trainer_at(step: int, total: int = 1000, **more: Any) -> Any:
    config = SimpleNamespace(total_steps=total, eval_interval=500)
    return SimpleNamespace(
        step=step, env_steps=2 * step, config=config, source=None, evaluator=object(), **more
    )


def test_phases_and_the_time_left(tmp_path: Path, clock: SimpleNamespace) -> None:
    beat = Heartbeat(tmp_path, lambda first, last: 0.1 * (last - first))
    beat.on_train_begin(trainer_at(0))
    assert told(tmp_path)["phase"] == "training"
    assert told(tmp_path)["left_s"] == pytest.approx(100)
    for clock.now in np.arange(100.5, 104, 0.5):
        beat.on_stage(trainer_at(0), "collecting")
    assert told(tmp_path)["phase"] == "collecting"
    assert told(tmp_path)["left_s"] == pytest.approx(97.5, abs=1)
    # Twice as slow as expected: the estimate follows what is measured.
    for step in range(1, 501):
        clock.now = 104 + 0.2 * step
        beat.on_step_end(trainer_at(step), {})
    assert told(tmp_path)["phase"] == "training"
    assert told(tmp_path)["left_s"] == pytest.approx(100, rel=0.1)
    beat.on_stage(trainer_at(500), "evaluating")
    assert told(tmp_path)["phase"] == "evaluating"
    clock.now += 30
    beat.on_eval_end(trainer_at(500), None)  # type: ignore[arg-type]
    clock.now += 1
    beat.on_step_end(trainer_at(501), {})
    # The last evaluation, at update 1,000, is still to come.
    assert told(tmp_path)["left_s"] == pytest.approx(130, rel=0.1)
    assert told(tmp_path)["step"] == 501
    assert told(tmp_path)["env_steps"] == 1002


def test_it_is_written_once_a_second(tmp_path: Path, clock: SimpleNamespace) -> None:
    beat = Heartbeat(tmp_path, lambda first, last: 0.0)
    beat.on_train_begin(trainer_at(0))
    seen = set()
    for step in range(1, 1000):
        clock.now += 0.01
        beat.on_step_end(trainer_at(step), {})
        seen.add(told(tmp_path)["step"])
    assert len(seen) <= 11
