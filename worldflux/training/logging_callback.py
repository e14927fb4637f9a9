"""`LoggingCallback`: rows of metrics and evaluations, to files, the console and loggers."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux import clock
from worldflux.data.collector import Episode
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.run_log import EVALUATIONS, METRICS, append_row

from .callback import COLLECTING, Callback
from .loggers import LOGGERS, NumberLog, TrackedRun, Tracking, open_log, require
from .system_use import SystemUse

if TYPE_CHECKING:
    from .trainer import Trainer


class LoggingCallback(Callback):
    """Writes metrics every `config.log_interval` updates, and every evaluation.

    Rates (`rate/updates_per_s`, `rate/env_steps_per_s`) count updates and the collecting between
    them: neither the random warm-up, nor evaluations and saving.

    Args:
        log_dir: folder of metrics.jsonl and eval.jsonl, and of the loggers' files. Without it no
            jsonl is written, and loggers write to `loggers/` in the run's output folder.
        log_to_console: a line on stderr for each row.
        log_to_tensorboard: event files too (extra `tensorboard`).
        log_to_wandb: a Weights & Biases run too (extra `wandb`), offline unless told otherwise.
        log_to_trackio: a local trackio run too (extra `trackio`).
        tracking: how these two name the run. A resumed run continues theirs.
        configuration: of the run, JSON-ready, sent to the loggers next to model and training.

    Raises:
        MissingDependencyError: when a logger's package is not installed.
    """

    def __init__(
        self,
        log_dir: str | Path | None = None,
        log_to_console: bool = True,
        log_to_tensorboard: bool = False,
        *,
        log_to_wandb: bool = False,
        log_to_trackio: bool = False,
        tracking: Tracking | None = None,
        configuration: Mapping[str, Any] | None = None,
    ) -> None:
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.log_to_console = log_to_console
        wanted = (log_to_tensorboard, log_to_wandb, log_to_trackio)
        self._wanted = [name for name, on in zip(LOGGERS, wanted, strict=True) if on]
        for name in self._wanted:
            require(name)
        self.tracking = tracking or Tracking()
        self.configuration = configuration or {}
        self._logs: list[NumberLog] = []
        self._returns: list[float] = []
        self._lengths: list[int] = []
        self._began = self._step_began = time.monotonic()
        self._earlier_s = 0.0  # of this run, before it was taken up again
        self._training_s, self._last_counts = 0.0, (0, 0)  # since the last row, and at it
        self._system = SystemUse()

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start the clock and open the loggers."""
        self._began = time.monotonic()
        self._rates_from(trainer)
        folder = self.log_dir or Path(trainer.config.output_dir) / "loggers"
        configuration = {
            "model_config": trainer.model.config.to_dict(),
            "training_config": trainer.config.to_dict(),
            **self.configuration,
        }
        run = TrackedRun(folder, self.tracking, configuration, trainer.step)
        self._logs = [open_log(name, run) for name in self._wanted]

    def on_episode_end(self, trainer: Trainer, episode: Episode) -> None:
        """Remember the return and the length for the next row."""
        self._returns.append(episode.episode_return)
        self._lengths.append(episode.length)

    def on_step_begin(self, trainer: Trainer) -> None:
        """Time counts as training from here to the end of the update."""
        self._step_began = time.monotonic()

    def on_stage(self, trainer: Trainer, stage: str) -> None:
        """What is collected before the first update is the warm-up, and no training."""
        if stage == COLLECTING and trainer.step == 0:
            self._rates_from(trainer)

    def _rates_from(self, trainer: Trainer) -> None:
        self._step_began = time.monotonic()
        self._training_s, self._last_counts = 0.0, (trainer.step, trainer.env_steps)

    def on_restore(self, trainer: Trainer, path: Path) -> None:
        """The counters went back, and rates count from there."""
        self._rates_from(trainer)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Write a row at every `log_interval`-th update."""
        now = time.monotonic()
        self._training_s += now - self._step_began
        if trainer.step % trainer.config.log_interval:
            return
        elapsed = max(self._training_s, 1e-9)
        steps, env_steps = self._last_counts
        row: dict[str, Any] = {
            "step": trainer.step,
            "env_steps": trainer.env_steps,
            "time": clock.now(),
            "wall_s": self._wall_s(now),
            "rate/updates_per_s": (trainer.step - steps) / elapsed,
            "rate/env_steps_per_s": (trainer.env_steps - env_steps) / elapsed,
            **self._system.read(trainer.model.device),
            **metrics,
        }
        if self._returns:
            row["train/episode_return"] = sum(self._returns) / len(self._returns)
        if self._lengths:
            row["train/episode_length"] = sum(self._lengths) / len(self._lengths)
        self._returns.clear()
        self._lengths.clear()
        self._training_s, self._last_counts = 0.0, (trainer.step, trainer.env_steps)
        self._write(METRICS, row)

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Write the evaluation's row."""
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
        if results.random_return_mean is not None:
            row["random_return_mean"] = results.random_return_mean
        self._write(EVALUATIONS, row)

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the loggers."""
        now = time.monotonic()
        self._earlier_s, self._began = self._wall_s(now), now
        for log in self._logs:
            log.close()
        self._logs = []

    def state_dict(self) -> dict[str, Any]:
        """Returns and lengths of the episodes since the last row, and how long the run has run."""
        wall_s = self._wall_s(time.monotonic())
        return {"returns": list(self._returns), "lengths": list(self._lengths), "wall_s": wall_s}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """They belong to the next row; its clock goes on from there."""
        self._returns = [float(value) for value in state["returns"]]
        self._lengths = [int(value) for value in state.get("lengths", [])]  # a new column
        self._earlier_s, self._began = float(state.get("wall_s", 0.0)), time.monotonic()

    def _wall_s(self, now: float) -> float:
        return self._earlier_s + now - self._began

    def _write(self, name: str, row: dict[str, Any]) -> None:
        if self.log_dir is not None:
            append_row(self.log_dir / name, row)
        numbers = {key: value for key, value in row.items() if isinstance(value, (int, float))}
        prefix = "eval/" if name == EVALUATIONS else ""
        for log in self._logs:
            log.add({prefix + key: value for key, value in numbers.items()}, row["step"])
        if self.log_to_console:
            shown = " ".join(f"{k}={v:.4g}" for k, v in numbers.items() if k != "time")
            print(shown, file=sys.stderr)
