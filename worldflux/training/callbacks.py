"""The callbacks that come along: checkpoints, logging, early stopping, progress."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from worldflux import clock
from worldflux.data.collector import Episode
from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.run_log import EVALUATIONS, METRICS, append_row

from .callback import Callback
from .checkpoints import steps_of
from .device import SystemUse
from .loggers import LOGGERS, Logger, TrackedRun, Tracking, open_logger, require_logger
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

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if trainer.step % self.save_every:
            return
        trainer.model.save_pretrained(self._path(trainer.step))
        if self.save_best and self.monitor != "return":
            self._keep_if_best(trainer, _monitored(metrics, self.monitor, trainer))
        # Those of an earlier process too; after a return to an earlier update none that lie ahead.
        steps = [s for s in steps_of(os.listdir(self.save_dir)) if s <= trainer.step]
        for step in steps[: -self.keep_last]:
            shutil.rmtree(self._path(step), ignore_errors=True)

    def _path(self, step: int) -> Path:
        return self.save_dir / f"step-{step:09d}"

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        if self.save_best and self.monitor == "return":
            self._keep_if_best(trainer, -results.return_mean)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best if math.isfinite(self.best) else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
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
        if self.best == math.inf:
            self.best_step = trainer.step

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if self.monitor != "return":
            self._compare(trainer, _monitored(metrics, self.monitor, trainer))
        if trainer.step - self.best_step >= self.patience:
            trainer.request_stop()

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        if self.monitor == "return":
            self._compare(trainer, results.return_mean)

    def state_dict(self) -> dict[str, Any]:
        best = self.best if math.isfinite(self.best) else None
        return {"best": best, "best_step": self.best_step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.best_step = int(state["best_step"])

    def _compare(self, trainer: Trainer, value: float) -> None:
        if self.sign * value < self.best - self.min_delta:
            self.best = self.sign * value
            self.best_step = trainer.step


def _monitored(metrics: dict[str, float], name: str, trainer: Trainer) -> float:
    """A metric by name; "loss" is the first phase's total."""
    key = f"loss/{trainer.phases[0].name}" if name == "loss" else name
    if key not in metrics:
        raise ConfigurationError(
            f"no metric {name!r} to monitor; this run has {sorted(metrics)}",
            hint=did_you_mean(name, metrics),
        )
    return metrics[key]


class LoggingCallback(Callback):
    """Writes metrics every `config.log_interval` updates, and every evaluation.

    Rates (`rate/updates_per_s`, `rate/env_steps_per_s`) count updates and the collecting between
    them: neither the random warm-up, nor evaluations and saving. `time/learning` and the like are
    percent of the time since the row before.

    Args:
        log_dir: folder of metrics.jsonl and eval.jsonl, and of the loggers' files. Without it no
            jsonl is written, and loggers write to `loggers/` in the run's output folder.
        log_to_console: a line on stderr for each row.
        log_to_tensorboard: short for `loggers=["tensorboard"]`.
        loggers: names of loggers, each an extra: "tensorboard" (event files), "wandb" (offline by
            default), "trackio" (local).
        tracking: how W&B and trackio name the run. A resumed run continues theirs.
        configuration: of the run, JSON-ready, sent to the loggers next to model and training.
        log_to: `log_to_NAME=True` for any other logger.

    Raises:
        ConfigurationError: for a logger or an argument that does not exist.
        MissingDependencyError: when a logger's package is not installed.
    """

    def __init__(
        self,
        log_dir: str | Path | None = None,
        log_to_console: bool = True,
        log_to_tensorboard: bool = False,
        *,
        loggers: Collection[str] = (),
        tracking: Tracking | None = None,
        configuration: Mapping[str, Any] | None = None,
        **log_to: bool,
    ) -> None:
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.log_to_console = log_to_console
        flags = {f"log_to_{name}": name for name in LOGGERS}
        for flag in log_to.keys() - flags.keys():
            raise ConfigurationError(
                f"LoggingCallback takes no argument {flag!r}", hint=did_you_mean(flag, flags)
            )
        chosen = {"log_to_tensorboard": log_to_tensorboard, **log_to}
        named = [flags[flag] for flag, wanted in chosen.items() if wanted]
        self._wanted = list(dict.fromkeys([*loggers, *named]))
        for name in self._wanted:
            require_logger(name)
        self.tracking = tracking or Tracking()
        self.configuration = configuration or {}
        self._loggers: list[Logger] = []
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._tasks: dict[str, float] = {}
        self._began = time.monotonic()
        self._earlier_s = 0.0  # of this run, before it was resumed
        self._last = (0.0, 0, 0)  # seconds of training, updates and environment steps
        self._system = SystemUse()
        self._spent: dict[str, float] = {}  # seconds by what for, at the last row

    def on_train_begin(self, trainer: Trainer) -> None:
        self._began = time.monotonic()
        self._last, self._spent = _counts(trainer), clock.spent.seconds()
        folder = self.log_dir or Path(trainer.config.output_dir) / "loggers"
        configuration = {
            "model_config": trainer.model.config.to_dict(),
            "training_config": trainer.config.to_dict(),
            "seed": trainer.config.seed,
            **self.configuration,
        }
        run = TrackedRun(folder, self.tracking, configuration, trainer.step)
        self._loggers = [open_logger(name, run) for name in self._wanted]
        for logger in self._loggers:
            logger.add_text("description", run.description(), trainer.step)

    def on_episode_end(self, trainer: Trainer, episode: Episode) -> None:
        self._returns.append(episode.episode_return)
        self._lengths.append(episode.length)

    def on_restore(self, trainer: Trainer, path: Path) -> None:
        self._last = _counts(trainer)  # which went back

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        seconds, steps, env_steps = self._last
        if trainer.step == 1:  # what was collected before is the warm-up
            env_steps = trainer.env_steps
            self._last = (seconds, steps, env_steps)
        if trainer.step % trainer.config.log_interval:
            return
        elapsed = max(trainer.trained_s - seconds, 1e-9)
        spent = clock.since(self._spent)
        passed = max(sum(spent.values()), 1e-9)
        row: dict[str, Any] = {
            "step": trainer.step,
            "env_steps": trainer.env_steps,
            "time": clock.now(),
            "wall_s": self._wall_s(),
            "rate/updates_per_s": (trainer.step - steps) / elapsed,
            "rate/env_steps_per_s": (trainer.env_steps - env_steps) / elapsed,
            **{f"time/{what}": 100 * each / passed for what, each in spent.items()},
            **self._system.read(trainer.model.device),
            **metrics,
            **self._tasks,
        }
        self._tasks = {}
        if self._returns:
            row["train/episode_return"] = sum(self._returns) / len(self._returns)
        if self._lengths:
            row["train/episode_length"] = sum(self._lengths) / len(self._lengths)
        self._returns.clear()
        self._lengths.clear()
        self._last, self._spent = _counts(trainer), clock.spent.seconds()
        self._write(METRICS, row)

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        row: dict[str, Any] = {
            "step": trainer.step,
            "env_steps": trainer.env_steps,
            "time": clock.now(),
            "return_mean": results.return_mean,
            "return_std": results.return_std,
            "returns": [float(value) for value in results.returns],
            "length_mean": float(results.lengths.mean()),
            "seed": trainer.config.seed,
        }
        if results.cut:
            row["episodes_cut"] = results.cut
        row |= {f"return_mean_{name}": value for name, value in results.policies.items()}
        if results.random_return_mean is not None:
            row["random_return_mean"] = results.random_return_mean
        if results.tasks:
            row["tasks"] = results.tasks
        # The next row of metrics has them too, where the page draws and loggers read them.
        self._tasks = {
            f"task/{name}/{key}": value
            for name, entry in results.tasks.items()
            for key, value in entry.items()
            if key in ("return_mean", "normalized")
        }
        self._write(EVALUATIONS, row)

    def on_media(self, trainer: Trainer, name: str, path: Path) -> None:
        for logger in self._loggers:
            logger.add_media(name, path, trainer.step)

    def on_train_end(self, trainer: Trainer) -> None:
        self._earlier_s, self._began = self._wall_s(), time.monotonic()
        for logger in self._loggers:
            logger.close()
        self._loggers = []

    def state_dict(self) -> dict[str, Any]:
        episodes = {"returns": list(self._returns), "lengths": list(self._lengths)}
        return {**episodes, "tasks": self._tasks, "wall_s": self._wall_s()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._returns = [float(value) for value in state["returns"]]
        # Older checkpoints have neither.
        self._lengths = [int(value) for value in state.get("lengths", [])]
        self._tasks = dict(state.get("tasks", {}))
        self._earlier_s, self._began = float(state.get("wall_s", 0.0)), time.monotonic()

    def _wall_s(self) -> float:
        return self._earlier_s + time.monotonic() - self._began

    def _write(self, name: str, row: dict[str, Any]) -> None:
        if self.log_dir is not None:
            append_row(self.log_dir / name, row)
        numbers = {key: value for key, value in row.items() if isinstance(value, (int, float))}
        prefix = "eval/" if name == EVALUATIONS else ""
        for logger in self._loggers:
            logger.add({prefix + key: value for key, value in numbers.items()}, row["step"])
        if self.log_to_console:
            shown = " ".join(f"{k}={v:.4g}" for k, v in numbers.items() if k != "time")
            print(shown, file=sys.stderr)


def _counts(trainer: Trainer) -> tuple[float, int, int]:
    return trainer.trained_s, trainer.step, trainer.env_steps
