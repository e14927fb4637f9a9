"""What a run does with an evaluation: counters, videos, pictures, and the end once it is solved."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from worldflux import clock
from worldflux.evaluation.episodes import EpisodeResults
from worldflux.evaluation.imagination import imagine, write_imagination
from worldflux.evaluation.open_loop import can_imagine
from worldflux.evaluation.plots import plot_returns, run_title
from worldflux.evaluation.recordings import SUFFIX, write_episodes
from worldflux.evaluation.video import watchable, write_video
from worldflux.layout import EVALUATIONS, IMAGINATION, METRICS, PLOTS, VIDEOS
from worldflux.run_log import keep_until, read_evaluations
from worldflux.training.callbacks import Callback
from worldflux.training.precision import Precision
from worldflux.training.trainer import Trainer

from .manifest import RunManifest

MAX_WARNINGS = 100
# Starts of the errors by horizon: enough for a smooth curve, few enough to cost about a second.
MAX_WINDOWS = 64


@contextmanager
def picture(trainer: Trainer, what: str) -> Iterator[None]:
    """A picture or video that cannot be drawn costs a warning, never the run."""
    try:
        yield
    except Exception as error:
        warn(trainer, f"no {what}: {type(error).__name__}: {error}")


def warn(trainer: Trainer, message: str) -> None:
    """Report a warning to every callback."""
    for callback in trainer.callbacks:
        callback.on_warning(trainer, message)


def announce(trainer: Trainer, name: str, path: Path) -> None:
    """Report a picture or video that was written to every callback."""
    for callback in trainer.callbacks:
        callback.on_media(trainer, name, path)


def draw_returns(folder: Path, manifest: dict[str, Any]) -> Path:
    """Draw the return curve of a run."""
    rows = list(read_evaluations(folder / EVALUATIONS))
    return plot_returns(rows, folder / PLOTS / "return_curve.png", run_title(manifest))


class RunRecorder(Callback):
    """Keeps run_manifest.json current, and writes a video and the return curve an evaluation."""

    def __init__(self, manifest: RunManifest, folder: Path, fps: int) -> None:
        self.manifest = manifest
        self.folder = folder
        self.fps = fps
        self._earlier: dict[str, float] = manifest.content["spent_s"]
        self._began: dict[str, float] = {}

    def on_train_begin(self, trainer: Trainer) -> None:
        self._began = clock.spent.seconds()

    def spent_s(self) -> dict[str, float]:
        """Seconds of the run by what they were spent on, those before it was resumed too."""
        now, before = clock.since(self._began), self._earlier
        return {what: before.get(what, 0.0) + now.get(what, 0.0) for what in {**before, **now}}

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        entry: dict[str, Any] = {
            "step": trainer.step,
            "env_steps": trainer.env_steps,
            "return_mean": results.return_mean,
            "return_std": results.return_std,
            "episodes": len(results.returns),
        }
        if results.cut:
            entry["episodes_cut"] = results.cut
        if results.tasks:
            entry["tasks"] = results.tasks
        changes: dict[str, Any] = {"final": entry}
        if trainer.best is not None and trainer.best["step"] == trainer.step:
            changes["best"] = entry
        self.manifest.update(global_step=trainer.step, env_steps=trainer.env_steps, **changes)
        if results.frames:
            name, fps = f"step-{trainer.step:09d}", results.render_fps or self.fps
            with picture(trainer, "video"):
                frames = watchable(results.frames, fps)
                video = write_video(self.folder / VIDEOS, name, frames, fps)
                announce(trainer, "eval/video", video)
        with picture(trainer, "return curve"):
            curve = draw_returns(self.folder, self.manifest.content)
            announce(trainer, "eval/return_curve", curve)

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        self._record_checkpoint(trainer, path, spent_s=self.spent_s())

    def _record_checkpoint(self, trainer: Trainer, path: Path, **changes: Any) -> None:
        counted = {"global_step": trainer.step, "env_steps": trainer.env_steps}
        self.manifest.update(**counted, last_checkpoint=path.name, **changes)

    def on_restore(self, trainer: Trainer, path: Path) -> None:
        """Take logs and manifest back to the checkpoint: later rows are written again."""
        if not self.manifest.begun:  # a resumed run changes nothing before it is restored
            self.manifest.begin(trainer.step)
        for name in (METRICS, EVALUATIONS):
            keep_until(self.folder / name, trainer.step)
        entries = {row["step"]: _entry(row) for row in read_evaluations(self.folder / EVALUATIONS)}
        best = None if trainer.best is None else entries.get(trainer.best["step"])
        final = entries[max(entries)] if entries else None
        self._record_checkpoint(trainer, path, best=best, final=final)

    def on_warning(self, trainer: Trainer, message: str) -> None:
        """What went wrong stays readable after the run."""
        self.manifest.append("warnings", message, MAX_WARNINGS)
        self.manifest.update(rollbacks=trainer.rollbacks)


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """The manifest's entry of an evaluation from its row in the log."""
    names = ("step", "env_steps", "return_mean", "return_std", "episodes_cut", "tasks")
    return {
        **{name: row[name] for name in names if name in row},
        "episodes": len(row["returns"]),
    }


class PrecisionRecorder(Callback):
    """Says what networks compute in where that was measured, and keeps it in the manifest."""

    def __init__(self, manifest: RunManifest, say: Callable[[str], None]) -> None:
        self.manifest, self.say = manifest, say
        self._known: Precision | None = None

    def on_train_begin(self, trainer: Trainer) -> None:
        self._record(trainer)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Measured before the first update."""
        if trainer.precision is not self._known:
            self._record(trainer)

    def _record(self, trainer: Trainer) -> None:
        self._known = trainer.precision
        if self._known is not None:
            self.manifest.update(precision=vars(self._known))
            if trainer.config.precision == "auto":
                self.say(str(self._known))


class ImaginationRecorder(Callback):
    """Predicts the recorded evaluation episodes open loop and writes `imagination/step-...`.

    Evaluation episodes never enter the replay, so the model has not learned from them.
    """

    def __init__(self, folder: Path, horizon: int, **labels: Any) -> None:
        self.folder = folder
        self.horizon = horizon
        self.labels = labels  # of every picture: env, model, seed

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Imagine with the weights that were evaluated (the average, where one is kept)."""
        if not results.recorded or not can_imagine(trainer.model):
            return
        average = trainer.average
        with nullcontext() if average is None else average.applied(trainer.model):
            imagination = imagine(
                trainer.model, results.recorded, self.horizon, max_windows=MAX_WINDOWS
            )
        name = f"step-{trainer.step:09d}"
        labels = {**self.labels, "step": trainer.step, "env_steps": trainer.env_steps}
        with picture(trainer, "picture of what the model imagines"):
            place = self.folder / IMAGINATION
            write_episodes(place / f"{name}{SUFFIX}", results.recorded)
            files = write_imagination(imagination, place, name, **labels)
            announce(trainer, "imagination/picture", files["picture"])
            announce(trainer, "imagination/video", files["video"])


class StopAtReturn(Callback):
    """Ends the run at the first evaluation whose mean return is at least `target`."""

    def __init__(self, target: float, manifest: RunManifest, say: Callable[[str], None]) -> None:
        self.target = target
        self.manifest = manifest
        self.say = say

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Compare; at the last update there is nothing left to stop."""
        if results.return_mean < self.target or trainer.step >= trainer.config.total_steps:
            return
        trainer.request_stop()
        self.manifest.update(stopped_early=True)
        self.say(
            f"return {results.return_mean:.1f} reaches evaluation.stop_at_return = "
            f"{self.target:g}: the run is complete at update {trainer.step} of "
            f"{trainer.config.total_steps}"
        )
