"""What the model imagines, refreshed at each evaluation of a run."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from worldflux.evaluation.episodes import EpisodeResults
from worldflux.evaluation.imagination import imagine, write_imagination
from worldflux.evaluation.open_loop import can_imagine
from worldflux.training.callbacks import Callback
from worldflux.training.trainer import Trainer

from .imagine import FOLDER
from .pictures import announce, picture

# Starts of the errors by horizon: enough for a smooth curve, few enough to cost about a second.
MAX_WINDOWS = 64


class ImaginationRecorder(Callback):
    """Predicts the recorded evaluation episodes open loop and writes `imagination/step-...`.

    Evaluation episodes never enter the replay, so the model has not learned from them.
    """

    def __init__(self, folder: Path, horizon: int, **labels: Any) -> None:
        self.folder = folder
        self.horizon = horizon
        self.labels = labels  # of every picture: env, model, seed

    def on_eval_end(self, trainer: Trainer, results: EpisodeResults) -> None:
        """Imagine with the weights that were evaluated (the average where there is one)."""
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
            files = write_imagination(imagination, self.folder / FOLDER, name, **labels)
            announce(trainer, "imagination/picture", files.picture)
            announce(trainer, "imagination/video", files.video)
