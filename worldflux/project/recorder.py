"""What a run does with an evaluation: counters, video, curve, and the end once it is solved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from worldflux.evaluation.episodes import EpisodeResults
from worldflux.evaluation.plots import plot_returns, run_title
from worldflux.evaluation.video import watchable, write_video
from worldflux.run_log import EVALUATIONS, METRICS, keep_until, read_evaluations
from worldflux.training.callbacks import Callback
from worldflux.training.trainer import Trainer

from .manifest import RunManifest
from .pictures import announce, picture

MAX_WARNINGS = 100


class RunRecorder(Callback):
    """Keeps run_manifest.json current, and writes a video and the return curve an evaluation."""

    def __init__(self, manifest: RunManifest, folder: Path, fps: int) -> None:
        self.manifest = manifest
        self.folder = folder
        self.fps = fps

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Record the evaluation."""
        entry: dict[str, Any] = {
            "step": trainer.step,
            "env_steps": trainer.env_steps,
            "return_mean": results.return_mean,
            "return_std": results.return_std,
            "episodes": len(results.returns),
        }
        if results.cut:
            entry["episodes_cut"] = results.cut
        changes: dict[str, Any] = {"final": entry}
        if trainer.best is not None and trainer.best["step"] == trainer.step:
            changes["best"] = entry
        self.manifest.update(global_step=trainer.step, env_steps=trainer.env_steps, **changes)
        if results.frames:
            name, fps = f"step-{trainer.step:09d}", results.render_fps or self.fps
            with picture(trainer, "video"):
                frames = watchable(results.frames, fps)
                video = write_video(self.folder / "videos", name, frames, fps)
                announce(trainer, "eval/video", video)
        rows = list(read_evaluations(self.folder / EVALUATIONS))
        with picture(trainer, "return curve"):
            title = run_title(self.manifest.content)
            curve = plot_returns(rows, self.folder / "plots" / "return_curve.png", title)
            announce(trainer, "eval/return_curve", curve)

    def on_checkpoint(self, trainer: Trainer, path: Path) -> None:
        """Record the newest checkpoint and the counters."""
        self.manifest.update(
            global_step=trainer.step, env_steps=trainer.env_steps, last_checkpoint=path.name
        )

    def on_restore(self, trainer: Trainer, path: Path) -> None:
        """The logs and what the manifest says go back with the run: later rows come anew."""
        if not self.manifest.begun:  # a resumed run changes nothing before it is restored
            self.manifest.begin(trainer.step)
        for name in (METRICS, EVALUATIONS):
            keep_until(self.folder / name, trainer.step)
        entries = {row["step"]: _entry(row) for row in read_evaluations(self.folder / EVALUATIONS)}
        best = None if trainer.best is None else entries.get(trainer.best["step"])
        final = entries[max(entries)] if entries else None
        self.on_checkpoint(trainer, path)
        self.manifest.update(best=best, final=final)

    def on_warning(self, trainer: Trainer, message: str) -> None:
        """What went wrong stays readable after the run."""
        told = [*self.manifest.content.get("warnings", []), message][-MAX_WARNINGS:]
        self.manifest.update(warnings=told, rollbacks=trainer.rollbacks)


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """The manifest's entry of an evaluation from its row in the log."""
    names = ("step", "env_steps", "return_mean", "return_std", "episodes_cut")
    kept = {name: row[name] for name in names if name in row}
    return {**kept, "episodes": len(row["returns"])}


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
