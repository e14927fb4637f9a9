"""What a run is doing right now, in one small file that pages and terminals read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux import clock
from worldflux.data.sources import OnlineSource
from worldflux.evaluation.episodes import EpisodeResults

from .callback import COLLECTING, EVALUATING, Callback

if TYPE_CHECKING:
    from .trainer import Trainer

HEARTBEAT = "heartbeat.json"
PRETRAINING, TRAINING = "pretraining", "training"
INTERVAL_S = 1.0
COLLECTING_SHOWN_S = 0.5  # the few steps between two updates are part of training
PRIOR_S = 2.0  # how long the expected duration outweighs the measured one

Expected = Callable[[int, int], float]


def write_heartbeat(folder: Path, phase: str, **numbers: Any) -> None:
    """Replace `heartbeat.json`; a page that reads it meanwhile sees the old one or the new one.

    It is not synced to the disk: a crash may lose it, and nothing reads it after one.
    """
    partial = folder / f".{HEARTBEAT}.tmp"
    content = {"phase": phase, "time": clock.now(), **numbers}
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(folder / HEARTBEAT)


class Heartbeat(Callback):
    """Writes phase, counters and the seconds left, once a second and when the phase changes.

    Args:
        folder: the run folder.
        expected_s: seconds that the updates `first`..`last` should take, with the collecting due
            meanwhile and without evaluations; what has been measured corrects it.
    """

    def __init__(self, folder: Path, expected_s: Expected) -> None:
        self.folder = folder
        self.expected_s = expected_s
        self.phase = TRAINING
        self._began = self._since = self._written = time.monotonic()
        self._first_step = 0
        self._evaluated_s: list[float] = []
        self._evaluating_since: float | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._began = self._since = time.monotonic()
        self._first_step = trainer.step
        self._evaluated_s = []
        self._enter(trainer, _learning(trainer))

    def on_stage(self, trainer: Trainer, stage: str) -> None:
        """Say what goes on; collecting only where it takes a while."""
        now = time.monotonic()
        if stage == EVALUATING:
            self._evaluating_since = now
        if stage != COLLECTING:
            self._enter(trainer, stage)
        elif now - self._since > COLLECTING_SHOWN_S:
            self._beat(trainer, COLLECTING)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """An update has ended."""
        self._since = time.monotonic()
        self._beat(trainer, _learning(trainer))

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Remember how long it took."""
        if self._evaluating_since is not None:
            self._evaluated_s.append(time.monotonic() - self._evaluating_since)
            self._evaluating_since = None

    def on_train_end(self, trainer: Trainer) -> None:
        """The last counters."""
        self._enter(trainer, self.phase)

    def left_s(self, trainer: Trainer) -> float:
        """Seconds until the last update, the evaluations still to come included."""
        now, total = time.monotonic(), trainer.config.total_steps
        running = 0.0 if self._evaluating_since is None else now - self._evaluating_since
        learned_s = now - self._began - sum(self._evaluated_s) - running
        done_s = self.expected_s(self._first_step, trainer.step)
        whole_s = self.expected_s(self._first_step, total)
        if trainer.step == self._first_step:  # still collecting for the first update
            return max(0.0, whole_s - learned_s) + self._evaluations_s(trainer, running)
        pace = (learned_s + PRIOR_S) / (done_s + PRIOR_S)
        return pace * max(0.0, whole_s - done_s) + self._evaluations_s(trainer, running)

    def _evaluations_s(self, trainer: Trainer, running: float) -> float:
        if trainer.evaluator is None or not self._evaluated_s:
            return 0.0
        mean_s = sum(self._evaluated_s) / len(self._evaluated_s)
        total, interval = trainer.config.total_steps, trainer.config.eval_interval
        coming = total // interval + (total % interval > 0) - trainer.step // interval
        return coming * mean_s + (max(0.0, mean_s - running) if running else 0.0)

    def _enter(self, trainer: Trainer, phase: str) -> None:
        self._written = float("-inf")
        self._beat(trainer, phase)

    def _beat(self, trainer: Trainer, phase: str) -> None:
        now = time.monotonic()
        if phase == self.phase and now - self._written < INTERVAL_S:
            return
        if phase != self.phase and now - self._written < 0.1:
            return
        self.phase, self._written = phase, now
        write_heartbeat(
            self.folder,
            phase,
            step=trainer.step,
            total_steps=trainer.config.total_steps,
            env_steps=trainer.env_steps,
            wall_s=now - self._began,
            left_s=self.left_s(trainer),
        )


def _learning(trainer: Trainer) -> str:
    """Pretraining while the schedule lets the agent rest."""
    source = trainer.source
    rests = isinstance(source, OnlineSource) and trainer.step < source.schedule.pretrain_updates
    return PRETRAINING if rests else TRAINING
