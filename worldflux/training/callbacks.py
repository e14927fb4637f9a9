"""Callbacks: told of every step, evaluation, checkpoint and episode of a run."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from worldflux import clock
from worldflux.data.collector import Episode
from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.evaluation.episodes import EpisodeResults

from .loggers import LOGGERS, NumberLog, open_log, require
from .run_log import EVALUATIONS, METRICS, append_row
from .system_use import SystemUse

if TYPE_CHECKING:
    from .trainer import Trainer


class Callback:
    """Base of all callbacks: override the hooks you need."""

    def on_train_begin(self, trainer: Trainer) -> None:
        """Before the first update of this call of `train`."""

    def on_train_end(self, trainer: Trainer) -> None:
        """After the last update."""

    def on_step_begin(self, trainer: Trainer) -> None:
        """Before each gradient update."""

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """After each gradient update, with its metrics ("loss/...", "grad_norm/...")."""

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """After each evaluation."""

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """After each checkpoint has been written."""

    def on_episode_end(self, trainer: Trainer, episode: Episode) -> None:
        """After each episode that the agent collected."""

    def on_restore(self, trainer: Trainer, path: Path) -> None:
        """After a checkpoint has been loaded, on resume or to go back after a NaN."""

    def on_warning(self, trainer: Trainer, message: str) -> None:
        """When something degraded but the run goes on."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know again, JSON-ready; checkpoints hold it."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""


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


class LoggingCallback(Callback):
    """Writes metrics every `config.log_interval` updates, and every evaluation.

    Args:
        log_dir: folder of metrics.jsonl and eval.jsonl, and of the loggers' files. Without it no
            jsonl is written, and loggers write to `loggers/` in the run's output folder.
        log_to_console: a line on stderr for each row.
        log_to_tensorboard: event files too (extra `tensorboard`).
        log_to_wandb: an offline Weights & Biases run too (extra `wandb`).
        log_to_trackio: a local trackio run too (extra `trackio`).

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
    ) -> None:
        self.log_dir = None if log_dir is None else Path(log_dir)
        self.log_to_console = log_to_console
        wanted = (log_to_tensorboard, log_to_wandb, log_to_trackio)
        self._wanted = [name for name, on in zip(LOGGERS, wanted, strict=True) if on]
        for name in self._wanted:
            require(name)
        self._logs: list[NumberLog] = []
        self._returns: list[float] = []
        self._began = self._last_time = time.monotonic()
        self._earlier_s = 0.0  # of this run, before it was taken up again
        self._last_counts = (0, 0)
        self._system = SystemUse()

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start the clock and open the loggers."""
        self._began = self._last_time = time.monotonic()
        self._last_counts = (trainer.step, trainer.env_steps)
        folder = self.log_dir or Path(trainer.config.output_dir) / "loggers"
        self._logs = [open_log(name, folder) for name in self._wanted]

    def on_episode_end(self, trainer: Trainer, episode: Episode) -> None:
        """Remember the return for the next row."""
        self._returns.append(episode.episode_return)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Write a row at every `log_interval`-th update."""
        if trainer.step % trainer.config.log_interval:
            return
        now = time.monotonic()
        elapsed = max(now - self._last_time, 1e-9)
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
        self._returns.clear()
        self._last_time, self._last_counts = now, (trainer.step, trainer.env_steps)
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
        """Returns of the episodes since the last row, and how long the run has trained."""
        return {"returns": list(self._returns), "wall_s": self._wall_s(time.monotonic())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """They belong to the next row; its clock goes on from there."""
        self._returns = [float(value) for value in state["returns"]]
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


class EarlyStoppingCallback(Callback):
    """Stops when `monitor` has not improved by `min_delta` for `patience` updates.

    Args:
        monitor: "loss" (the first phase's), any training metric, or "return" (evaluation).
        mode: whether lower ("min") or higher ("max") is better.

    Raises:
        ConfigurationError: for another mode, or a patience below 1.
    """

    def __init__(
        self,
        monitor: str = "loss",
        patience: int = 5000,
        min_delta: float = 1e-4,
        mode: Literal["min", "max"] = "min",
    ) -> None:
        if mode not in ("min", "max") or patience < 1:
            raise ConfigurationError('EarlyStoppingCallback: mode is "min" or "max", patience >= 1')
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


class ProgressCallback(Callback):
    """Progress of a run: a live bar on a terminal, a plain line at intervals elsewhere.

    Args:
        stream: where to write; stderr by default.
        interval_s: seconds between plain lines.
    """

    def __init__(self, stream: TextIO | None = None, interval_s: float = 10.0) -> None:
        self.stream = stream or sys.stderr
        self.interval_s = interval_s
        self._live = self.stream.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._began = self._shown = 0.0
        self._first_step = 0
        self._return = "-"

    def on_train_begin(self, trainer: Trainer) -> None:
        """Open the bar."""
        self._began = self._shown = time.monotonic()
        self._first_step = trainer.step
        if not self._live:
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("train"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[detail]}"),
            TimeRemainingColumn(),
            console=Console(file=self.stream),
        )
        self._bar.start()
        total = trainer.config.total_steps
        self._task = self._bar.add_task("train", total=total, completed=trainer.step, detail="")

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Move the bar, or print a line when the interval is over."""
        now = time.monotonic()
        if self._bar is not None and now - self._shown >= 0.2:
            self._shown = now
            detail = self._detail(trainer, metrics, now)
            self._bar.update(self._task, completed=trainer.step, detail=detail)
        elif self._bar is None and now - self._shown >= self.interval_s:
            self._shown = now
            self._say(
                f"update {trainer.step}/{trainer.config.total_steps} "
                + self._detail(trainer, metrics, now)
                + self._time_left(trainer, now)
            )

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Tell the evaluation return."""
        self._return = f"{results.return_mean:.1f}"
        self._say(
            f"evaluation at update {trainer.step} ({trainer.env_steps} environment steps): "
            f"return {results.return_mean:.1f} +- {results.return_std:.1f} over "
            f"{len(results.returns)} episodes"
        )

    def on_warning(self, trainer: Trainer, message: str) -> None:
        """Tell a warning."""
        self._say(f"warning: {message}")

    def on_train_end(self, trainer: Trainer) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.step)
            self._bar.stop()
            self._bar = None

    def _detail(self, trainer: Trainer, metrics: dict[str, float], now: float) -> str:
        rate = (trainer.step - self._first_step) / max(now - self._began, 1e-9)
        loss = metrics.get(f"loss/{trainer.phases[0].name}", math.nan)
        return f"loss {loss:.3g} return {self._return} {rate:.1f} updates/s"

    def _time_left(self, trainer: Trainer, now: float) -> str:
        done = trainer.step - self._first_step
        left = (trainer.config.total_steps - trainer.step) * (now - self._began) / max(done, 1)
        return f" {int(left // 60)}:{int(left % 60):02d} left"

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=self.stream, flush=True)


def callback_states(callbacks: list[Callback]) -> dict[str, Any]:
    """The state of every callback by class and order: "LoggingCallback/0"."""
    return {name: callback.state_dict() for name, callback in _numbered(callbacks)}


def restore_callbacks(callbacks: list[Callback], states: dict[str, Any]) -> None:
    """Give each callback its own state back; one that was not there then begins anew."""
    for name, callback in _numbered(callbacks):
        if states.get(name):
            callback.load_state_dict(states[name])


def _numbered(callbacks: list[Callback]) -> list[tuple[str, Callback]]:
    seen: dict[str, int] = {}
    named = []
    for callback in callbacks:
        kind = type(callback).__name__
        named.append((f"{kind}/{seen.get(kind, 0)}", callback))
        seen[kind] = seen.get(kind, 0) + 1
    return named


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
