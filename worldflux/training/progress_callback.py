"""What a run is doing right now and how long it still takes: heartbeat.json and the terminal."""

from __future__ import annotations

import json
import math
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from worldflux import clock
from worldflux.data.collector import Episode
from worldflux.data.sources import OnlineSource
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.files import replacing
from worldflux.layout import HEARTBEAT
from worldflux.progress import Progress, duration

from .callback import COLLECTING, EVALUATING, Callback

if TYPE_CHECKING:
    from .trainer import Trainer

PRETRAINING, TRAINING = "pretraining", "training"
RECORDING = "recording"  # videos, pictures and curves of an evaluation
_HEARTBEAT_S = 1.0
_COLLECTING_SHOWN_S = 0.5  # the few steps between two updates are part of training
_PRIOR_S = 2.0  # how long the expected duration outweighs the measured one
_RETURNS = 10  # episodes in the mean training return
_RATE_S = 60.0  # of training, over which the rate is measured

Expected = Callable[[int, int], float]
"""Seconds that the updates first..last should take, with collecting and without evaluations."""


class PhaseCallback(Callback, ABC):
    """Calls `beat` at each sign of life of a run, with its phase.

    What has been measured corrects `expected_s`; without it an update counts as long as the others.
    """

    def __init__(self, expected_s: Expected | None = None) -> None:
        self.expected_s = expected_s
        self._began = self._since = time.monotonic()
        self._first_step = 0
        self._evaluated_s: list[float] = []
        self._evaluating_since: float | None = None

    @abstractmethod
    def beat(self, trainer: Trainer, phase: str, entered: bool) -> None:
        """Show it; `entered` says that the phase begins or ends here, and must not be missed."""

    def on_train_begin(self, trainer: Trainer) -> None:
        self._began = self._since = time.monotonic()
        self._first_step = trainer.step
        self._evaluated_s = []
        self.beat(trainer, _learning_phase(trainer), True)

    def on_stage(self, trainer: Trainer, stage: str) -> None:
        now = time.monotonic()
        if stage == EVALUATING:
            self._evaluating_since = now
        if stage != COLLECTING:
            self.beat(trainer, stage, True)
        elif now - self._since > _COLLECTING_SHOWN_S:
            self.beat(trainer, COLLECTING, False)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        self._since = time.monotonic()
        self.beat(trainer, _learning_phase(trainer), False)

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        if self._evaluating_since is not None:
            self._evaluated_s.append(time.monotonic() - self._evaluating_since)
            self._evaluating_since = None

    def left_s(self, trainer: Trainer) -> float:
        """Seconds until the last update, the evaluations still to come included."""
        now, total = time.monotonic(), trainer.config.total_steps
        running = 0.0 if self._evaluating_since is None else now - self._evaluating_since
        learned_s = now - self._began - sum(self._evaluated_s) - running
        done, evaluations_s = trainer.step - self._first_step, self._evaluations_s(trainer, running)
        if self.expected_s is None:
            return learned_s / max(done, 1) * max(0, total - trainer.step) + evaluations_s
        done_s = self.expected_s(self._first_step, trainer.step)
        whole_s = self.expected_s(self._first_step, total)
        if not done:  # still collecting for the first update
            return max(0.0, whole_s - learned_s) + evaluations_s
        pace = (learned_s + _PRIOR_S) / (done_s + _PRIOR_S)
        return pace * max(0.0, whole_s - done_s) + evaluations_s

    def _evaluations_s(self, trainer: Trainer, running: float) -> float:
        if trainer.evaluator is None or not self._evaluated_s:
            return 0.0
        mean_s = sum(self._evaluated_s) / len(self._evaluated_s)
        total, interval = trainer.config.total_steps, trainer.config.eval_interval
        coming = total // interval + (total % interval > 0) - trainer.step // interval
        return coming * mean_s + (max(0.0, mean_s - running) if running else 0.0)


def _learning_phase(trainer: Trainer) -> str:
    """Training; before it what the schedule asks for: the warm-up, updates without a step."""
    source = trainer.source
    if not isinstance(source, OnlineSource):
        return TRAINING
    if trainer.step == 0 and trainer.env_steps < source.schedule.due(0):
        return COLLECTING
    return PRETRAINING if trainer.step < source.schedule.pretrain_updates else TRAINING


class Heartbeat(PhaseCallback):
    """Writes phase, counters and the seconds left, once a second and when the phase changes.

    The file is replaced at once; it is not synced, because nothing reads it after a crash.
    """

    def __init__(self, folder: Path, expected_s: Expected) -> None:
        super().__init__(expected_s)
        self.folder = folder
        self.phase = TRAINING
        self._written = float("-inf")

    def on_train_end(self, trainer: Trainer) -> None:
        self.beat(trainer, self.phase, True)

    def beat(self, trainer: Trainer, phase: str, entered: bool) -> None:
        now = time.monotonic()
        wait_s = _HEARTBEAT_S if phase == self.phase else 0.1
        if not entered and now - self._written < wait_s:
            return
        self.phase, self._written = phase, now
        content = {
            "phase": phase,
            "time": clock.now(),
            "step": trainer.step,
            "total_steps": trainer.config.total_steps,
            "env_steps": trainer.env_steps,
            "wall_s": now - self._began,
            "left_s": self.left_s(trainer),
        }
        with replacing(self.folder / HEARTBEAT) as partial:
            partial.write_text(json.dumps(content), encoding="utf-8")


class ProgressCallback(PhaseCallback):
    """Progress of a run: a live line on a terminal, a plain line at intervals elsewhere.

    Args:
        stream: where to write; stderr by default.
        interval_s: seconds between plain lines.
        screen: what to write to instead, where others write too.
        expected_s: seconds that the updates first..last should take, to estimate the time left.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        interval_s: float = 30.0,
        *,
        screen: Progress | None = None,
        expected_s: Expected | None = None,
    ) -> None:
        super().__init__(expected_s)
        self.screen = screen or Progress(stream or sys.stderr, interval_s=interval_s)
        self._phase = ""
        self._returns: deque[float] = deque(maxlen=_RETURNS)
        self._evaluated: float | None = None
        self._marks: deque[tuple[float, int]] = deque()  # (seconds of training, updates)

    def on_train_begin(self, trainer: Trainer) -> None:
        self._phase = ""
        self._marks.clear()
        self._marks.append((trainer.trained_s, trainer.step))
        super().on_train_begin(trainer)

    def on_episode_end(self, trainer: Trainer, episode: Episode) -> None:
        self._returns.append(episode.episode_return)

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        super().on_eval_end(trainer, results)
        self._evaluated = results.return_mean
        best = trainer.best is not None and trainer.best["step"] == trainer.step
        self.screen.say(
            f"evaluation at update {trainer.step} ({trainer.env_steps} environment steps): "
            f"return {results.return_mean:.1f} +- {results.return_std:.1f}"
            + (" (best)" if best else "")
        )
        self._phase = RECORDING
        self.screen.phase(RECORDING)

    def on_warning(self, trainer: Trainer, message: str) -> None:
        self.screen.say(f"warning: {message}")

    def on_train_end(self, trainer: Trainer) -> None:
        self.screen.close()

    def beat(self, trainer: Trainer, phase: str, entered: bool) -> None:
        if phase != self._phase:
            self._phase = phase
            done, total, unit = _extent(trainer, phase)
            self.screen.phase(phase, total, unit, done=done, facts=self._facts(trainer))
        elif self.screen.due():
            self.screen.show(_extent(trainer, phase)[0], self._facts(trainer))

    def _facts(self, trainer: Trainer) -> Iterator[str]:
        """The most important first; as many are shown as fit."""
        if self._phase not in (TRAINING, PRETRAINING):
            yield f"update {trainer.step}/{trainer.config.total_steps}"
        if self._marks[0][1] < trainer.step < trainer.config.total_steps:
            yield f"{duration(self.left_s(trainer))} left"
        trained = sum(self._returns) / max(1, len(self._returns))
        if self._evaluated is not None and self._returns:
            yield f"return {self._evaluated:.1f} (training {trained:.1f})"
        elif self._evaluated is not None:
            yield f"return {self._evaluated:.1f}"
        elif self._returns:
            yield f"training return {trained:.1f}"
        if self._phase != COLLECTING and trainer.env_steps:
            yield f"{trainer.env_steps} env steps"
        if self._phase in (TRAINING, PRETRAINING) and trainer.step > self._marks[0][1]:
            yield f"{self._rate(trainer):.1f} updates/s"
            yield f"loss {trainer.metrics.get(f'loss/{trainer.phases[0].name}', math.nan):.3g}"

    def _rate(self, trainer: Trainer) -> float:
        """Updates a second of the last minute of training."""
        while len(self._marks) > 1 and trainer.trained_s - self._marks[1][0] >= _RATE_S:
            self._marks.popleft()
        seconds, step = self._marks[0]
        if trainer.trained_s - self._marks[-1][0] >= 1:
            self._marks.append((trainer.trained_s, trainer.step))
        return (trainer.step - step) / max(trainer.trained_s - seconds, 1e-9)


def _extent(trainer: Trainer, phase: str) -> tuple[int, int, str]:
    """How far the phase is, out of how much, of what."""
    source, total = trainer.source, trainer.config.total_steps
    if phase == COLLECTING and isinstance(source, OnlineSource):
        return trainer.env_steps, source.schedule.due(trainer.step), "environment steps"
    if phase == PRETRAINING and isinstance(source, OnlineSource):
        return trainer.step, min(source.schedule.pretrain_updates, total), "updates"
    if phase == TRAINING:
        return trainer.step, total, ""
    if phase == EVALUATING:
        return 0, int(getattr(trainer.evaluator, "total_episodes", 0)), "episodes"
    return 0, 0, ""
