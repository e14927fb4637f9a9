"""Frames of the agent as it trains, for the page: few, small, and paid from a fixed budget."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import EnvironmentSetupError
from worldflux.files import replacing
from worldflux.layout import GAMEPLAY
from worldflux.training.callbacks import Callback
from worldflux.training.trainer import Trainer

from .recorder import picture, warn

FRAMES_KEPT = 64
MAX_SIDE = 320  # pixels
JPEG_QUALITY = 70
# All frames together may take this share of the run's time; one that costs more comes later. What a
# frame costs besides, in caches gone cold and in the page that shows it, is as much again.
MAX_SHARE = 0.005

_FRAME = re.compile(r"(\d{8})-\d+-\d+\.jpg")


class GameplayStream(Callback):
    """Draws training environment 0 after an update, at most `fps` times a second.

    Each frame is one file, `gameplay/<number>-<update>-<environment steps>.jpg`; the newest
    `FRAMES_KEPT` stay. Nothing waits for a reader. Drawing takes no random number, so a run
    learns the same with and without it. An environment that cannot draw is reported once
    (`on_warning`), and the run continues without frames.

    Args:
        folder: the run folder.
        envs: the training environments; the first one's render_mode must be "rgb_array".
        fps: frames a second at most.
        clock: seconds; the budget is measured with it.
    """

    def __init__(
        self,
        folder: Path,
        envs: VectorEnvironment,
        fps: int,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.folder = folder / GAMEPLAY
        self.envs = envs
        self.fps = fps
        self._clock = clock
        self._began = self._last = clock()
        self._spent = 0.0
        self._frame_s = 0.0  # what the cheapest frame took; unknown yet
        self._is_warm = False  # the first frame loads the renderer, which happens once
        self._shown_env_steps: int | None = None
        self._names: list[str] = []
        self._number = 0
        self._is_broken = False

    def on_train_begin(self, trainer: Trainer) -> None:
        """Continue after the frames of an earlier session; the budget starts again."""
        found = sorted(p.name for p in self.folder.glob("*.jpg") if _FRAME.fullmatch(p.name))
        self._names = found
        self._number = int(found[-1].split("-")[0]) + 1 if found else 0
        self._began, self._spent = self._clock(), 0.0
        self._last = self._began

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Draw, if a frame is due and paid for, and the agent has acted since the last one."""
        now = self._clock()
        if (
            self._is_broken
            or now - self._last < 1.0 / self.fps
            or self._spent + self._frame_s > MAX_SHARE * (now - self._began)
            or trainer.env_steps == self._shown_env_steps
        ):
            return
        self._shown_env_steps = trainer.env_steps
        self._draw(trainer)
        self._last = now
        if self._is_warm:
            cost_s = self._clock() - now
            self._spent += cost_s
            self._frame_s = min(self._frame_s or cost_s, cost_s)
        self._is_warm = True

    def _draw(self, trainer: Trainer) -> None:
        try:
            frame = self.envs.render_first()
        except EnvironmentSetupError as error:
            self._is_broken = True
            warn(trainer, f"no gameplay frames and no videos: {error.message}")
            return
        self._is_broken = True  # unless it can be written
        with picture(trainer, "gameplay frames"):
            self._write(frame, f"{self._number:08d}-{trainer.step}-{trainer.env_steps}.jpg")
            self._is_broken = False
        self._number += 1

    def _write(self, frame: np.ndarray, name: str) -> None:
        from PIL import Image

        self.folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.asarray(frame, np.uint8)).convert("RGB")
        # Twice as fast as the default; nobody measures anything in these.
        image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.BILINEAR)
        with replacing(self.folder / name) as partial:
            image.save(partial, "JPEG", quality=JPEG_QUALITY)
        self._names.append(name)
        while len(self._names) > FRAMES_KEPT:
            (self.folder / self._names.pop(0)).unlink(missing_ok=True)
