"""`ProgressCallback`: the phase of a run, its counters, returns and time left, on a terminal."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from worldflux.data.collector import Episode
from worldflux.data.sources import OnlineSource
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.progress import Progress, Screen, duration

from .callback import COLLECTING, EVALUATING
from .run_phase import PRETRAINING, TRAINING, Expected, PhaseCallback

if TYPE_CHECKING:
    from .trainer import Trainer

RECORDING = "recording"  # videos, pictures and curves of an evaluation
_RETURNS = 10  # episodes in the mean training return
_RATE_S = 60.0  # of training, over which the rate is measured


class ProgressCallback(PhaseCallback):
    """Progress of a run: a live line on a terminal, a plain line at intervals elsewhere.

    Args:
        stream: where to write; stderr by default.
        interval_s: seconds between plain lines.
        screen: what to write to instead, where others write too.
        expected_s: as `PhaseCallback` takes it.
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
        self.screen = screen or Screen(stream, interval_s=interval_s)
        self._phase = ""
        self._returns: deque[float] = deque(maxlen=_RETURNS)
        self._evaluated: float | None = None
        self._trained_s, self._step_began = 0.0, 0.0
        self._marks: deque[tuple[float, int]] = deque()  # (seconds of training, updates)

    def on_train_begin(self, trainer: Trainer) -> None:
        """Show the first phase."""
        self._phase, self._trained_s = "", 0.0
        self._marks.clear()
        self._marks.append((0.0, trainer.step))
        super().on_train_begin(trainer)

    def on_step_begin(self, trainer: Trainer) -> None:
        """Time counts as training from here to the end of the update."""
        self._step_began = time.monotonic()

    def on_stage(self, trainer: Trainer, stage: str) -> None:
        """Show collecting, evaluating and saving."""
        if stage == COLLECTING and trainer.step == 0:  # the warm-up is no training
            self._step_began = time.monotonic()
        super().on_stage(trainer, stage)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Show how far the run is, a few times a second at most."""
        self._trained_s += time.monotonic() - self._step_began
        super().on_step_end(trainer, metrics)

    def on_episode_end(self, trainer: Trainer, episode: Episode) -> None:
        """Remember the training return."""
        self._returns.append(episode.episode_return)

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Tell the evaluation return."""
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
        """Tell a warning."""
        self.screen.say(f"warning: {message}")

    def on_train_end(self, trainer: Trainer) -> None:
        """Take the live line off."""
        self.screen.close()

    def beat(self, trainer: Trainer, phase: str, entered: bool) -> None:
        """Show the phase and the facts that fit."""
        if phase != self._phase:
            self._phase = phase
            done, total, unit = _extent(trainer, phase)
            self.screen.phase(phase, total, unit, done=done, facts=self._facts(trainer))
        elif self.screen.due():
            self.screen.show(_extent(trainer, phase)[0], self._facts(trainer))

    def _facts(self, trainer: Trainer) -> Iterator[str]:
        """The most important first, each as it is asked for."""
        if self._phase not in (TRAINING, PRETRAINING):
            yield f"update {trainer.step}/{trainer.config.total_steps}"
        if self._marks[0][1] < trainer.step < trainer.config.total_steps:
            yield f"{duration(self.left_s(trainer))} left"
        if self._evaluated is not None and self._returns:
            yield f"return {self._evaluated:.1f} (training {self._training_return():.1f})"
        elif self._evaluated is not None:
            yield f"return {self._evaluated:.1f}"
        elif self._returns:
            yield f"training return {self._training_return():.1f}"
        if self._phase != COLLECTING and trainer.env_steps:
            yield f"{trainer.env_steps} env steps"
        if self._phase in (TRAINING, PRETRAINING) and trainer.step > self._marks[0][1]:
            yield f"{self._rate(trainer):.1f} updates/s"
            yield f"loss {trainer.metrics.get(f'loss/{trainer.phases[0].name}', math.nan):.3g}"

    def _training_return(self) -> float:
        return sum(self._returns) / len(self._returns)

    def _rate(self, trainer: Trainer) -> float:
        """Updates a second of the last minute of training."""
        while len(self._marks) > 1 and self._trained_s - self._marks[1][0] >= _RATE_S:
            self._marks.popleft()
        seconds, step = self._marks[0]
        if self._trained_s - self._marks[-1][0] >= 1:
            self._marks.append((self._trained_s, trainer.step))
        return (trainer.step - step) / max(self._trained_s - seconds, 1e-9)


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
        return 0, int(getattr(trainer.evaluator, "episodes", 0)), "episodes"
    return 0, 0, ""
