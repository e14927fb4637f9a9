"""What a run is doing right now, and how long it still takes: for whatever shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from worldflux.data.sources import OnlineSource
from worldflux.evaluation.episodes import EpisodeResults

from .callback import COLLECTING, EVALUATING, Callback

if TYPE_CHECKING:
    from .trainer import Trainer

PRETRAINING, TRAINING = "pretraining", "training"
COLLECTING_SHOWN_S = 0.5  # the few steps between two updates are part of training
PRIOR_S = 2.0  # how long the expected duration outweighs the measured one

Expected = Callable[[int, int], float]


class PhaseCallback(Callback):
    """Calls `beat` at each sign of life of a run, with its phase.

    Args:
        expected_s: seconds that the updates `first`..`last` should take, with the collecting due
            meanwhile and without evaluations; what has been measured corrects it. Without it an
            update counts as long as the others.
    """

    def __init__(self, expected_s: Expected | None = None) -> None:
        self.expected_s = expected_s
        self._began = self._since = time.monotonic()
        self._first_step = 0
        self._evaluated_s: list[float] = []
        self._evaluating_since: float | None = None

    def beat(self, trainer: Trainer, phase: str, entered: bool) -> None:
        """Show it; `entered` says that the phase begins or ends here, and must not be missed."""
        raise NotImplementedError

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start the clock."""
        self._began = self._since = time.monotonic()
        self._first_step = trainer.step
        self._evaluated_s = []
        self.beat(trainer, learning_phase(trainer), True)

    def on_stage(self, trainer: Trainer, stage: str) -> None:
        """Say what goes on; collecting only where it takes a while."""
        now = time.monotonic()
        if stage == EVALUATING:
            self._evaluating_since = now
        if stage != COLLECTING:
            self.beat(trainer, stage, True)
        elif now - self._since > COLLECTING_SHOWN_S:
            self.beat(trainer, COLLECTING, False)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """An update has ended."""
        self._since = time.monotonic()
        self.beat(trainer, learning_phase(trainer), False)

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Remember how long it took."""
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
        pace = (learned_s + PRIOR_S) / (done_s + PRIOR_S)
        return pace * max(0.0, whole_s - done_s) + evaluations_s

    def _evaluations_s(self, trainer: Trainer, running: float) -> float:
        if trainer.evaluator is None or not self._evaluated_s:
            return 0.0
        mean_s = sum(self._evaluated_s) / len(self._evaluated_s)
        total, interval = trainer.config.total_steps, trainer.config.eval_interval
        coming = total // interval + (total % interval > 0) - trainer.step // interval
        return coming * mean_s + (max(0.0, mean_s - running) if running else 0.0)


def learning_phase(trainer: Trainer) -> str:
    """Training; before it what the schedule asks for: the warm-up, updates without a step."""
    source = trainer.source
    if not isinstance(source, OnlineSource):
        return TRAINING
    if trainer.step == 0 and trainer.env_steps < source.schedule.due(0):
        return COLLECTING
    return PRETRAINING if trainer.step < source.schedule.pretrain_updates else TRAINING
