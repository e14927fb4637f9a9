"""The callbacks that come along: checkpoints, logging, early stopping, progress."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.evaluation.episodes import EpisodeResults

from .callback import Callback
from .logging_callback import LoggingCallback
from .progress_callback import ProgressCallback

if TYPE_CHECKING:
    from .trainer import Trainer

__all__ = [
    "Callback",
    "CheckpointCallback",
    "EarlyStoppingCallback",
    "LoggingCallback",
    "ProgressCallback",
]


class CheckpointCallback(Callback):
    """Saves the model every `save_every` updates into `save_dir`, besides the run's checkpoints.

    Args:
        keep_last: how many of the newest to keep.
        save_best: keep the one with the best `monitor` too, as `save_dir/best`.
        monitor: "return" for the evaluation return (higher is better), or a training metric
            (lower is better; "loss" is the first phase's).

    Raises:
        ConfigurationError: for numbers below 1.
    """

    def __init__(
        self,
        save_dir: str | Path,
        save_every: int = 10_000,
        keep_last: int = 3,
        save_best: bool = True,
        monitor: str = "loss",
    ) -> None:
        if save_every < 1 or keep_last < 1:
            raise ConfigurationError("CheckpointCallback: save_every and keep_last are at least 1")
        self.save_dir = Path(save_dir)
        self.save_every = save_every
        self.keep_last = keep_last
        self.save_best = save_best
        self.monitor = monitor
        self.best = math.inf
        self._saved: list[Path] = []

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Save at every `save_every`-th update."""
        if trainer.step % self.save_every:
            return
        path = self.save_dir / f"step-{trainer.step:09d}"
        trainer.model.save_pretrained(path)
        self._saved.append(path)
        if self.save_best and self.monitor != "return":
            self._keep_if_best(trainer, monitored(metrics, self.monitor, trainer))
        while len(self._saved) > self.keep_last:
            oldest = self._saved.pop(0)
            for file in oldest.iterdir():
                file.unlink()
            oldest.rmdir()

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Keep the best by evaluation return."""
        if self.save_best and self.monitor == "return":
            self._keep_if_best(trainer, -results.return_mean)

    def state_dict(self) -> dict[str, Any]:
        """The best value so far."""
        return {"best": self.best if math.isfinite(self.best) else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Only a better one replaces the kept best."""
        self.best = math.inf if state["best"] is None else float(state["best"])

    def _keep_if_best(self, trainer: Trainer, value: float) -> None:
        if value < self.best:
            self.best = value
            trainer.model.save_pretrained(self.save_dir / "best")


class EarlyStoppingCallback(Callback):
    """Stops when `monitor` has not improved by `min_delta` for `patience` updates.

    Args:
        monitor: "loss" (the first phase's), any training metric, or "return" (evaluation).
        mode: whether lower ("min") or higher ("max") is better.

    Raises:
        ConfigurationError: for another mode, a patience below 1 or a min_delta below 0.
    """

    def __init__(
        self,
        monitor: str = "loss",
        patience: int = 5000,
        min_delta: float = 1e-4,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if mode not in ("min", "max") or patience < 1 or not min_delta >= 0:
            raise ConfigurationError(
                'EarlyStoppingCallback: mode is "min" or "max", patience >= 1, min_delta >= 0'
            )
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.sign = 1.0 if mode == "min" else -1.0
        self.best = math.inf
        self.best_step = 0

    def on_train_begin(self, trainer: Trainer) -> None:
        """Count patience from here, unless a resumed run counts already."""
        if self.best == math.inf:
            self.best_step = trainer.step

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Compare, and stop when patience is over."""
        if self.monitor != "return":
            self._compare(trainer, monitored(metrics, self.monitor, trainer))
        if trainer.step - self.best_step >= self.patience:
            trainer.request_stop()

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Compare the evaluation return."""
        if self.monitor == "return":
            self._compare(trainer, results.return_mean)

    def state_dict(self) -> dict[str, Any]:
        """The best value and the update that it was seen at."""
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with that patience."""
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.best_step = int(state["best_step"])

    def _compare(self, trainer: Trainer, value: float) -> None:
        if self.sign * value < self.best - self.min_delta:
            self.best = self.sign * value
            self.best_step = trainer.step


def monitored(metrics: dict[str, float], name: str, trainer: Trainer) -> float:
    """A metric by name; "loss" is the first phase's total.

    Raises:
        ConfigurationError: when the run has no such metric.
    """
    key = f"loss/{trainer.phases[0].name}" if name == "loss" else name
    if key not in metrics:
        raise ConfigurationError(
            f"no metric {name!r} to monitor; this run has {sorted(metrics)}",
            hint=did_you_mean(name, metrics),
        )
    return metrics[key]
