"""What a run is doing right now, in one small file that pages and terminals read."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldflux import clock

from .run_phase import TRAINING, Expected, PhaseCallback

if TYPE_CHECKING:
    from .trainer import Trainer

HEARTBEAT = "heartbeat.json"
INTERVAL_S = 1.0


def write_heartbeat(folder: Path, phase: str, **numbers: Any) -> None:
    """Replace `heartbeat.json`; a page that reads it meanwhile sees the old one or the new one.

    It is not synced to the disk: a crash may lose it, and nothing reads it after one.
    """
    partial = folder / f".{HEARTBEAT}.tmp"
    content = {"phase": phase, "time": clock.now(), **numbers}
    partial.write_text(json.dumps(content), encoding="utf-8")
    partial.replace(folder / HEARTBEAT)


class Heartbeat(PhaseCallback):
    """Writes phase, counters and the seconds left, once a second and when the phase changes.

    Args:
        folder: the run folder.
        expected_s: as `PhaseCallback` takes it.
    """

    def __init__(self, folder: Path, expected_s: Expected) -> None:
        super().__init__(expected_s)
        self.folder = folder
        self.phase = TRAINING
        self._written = float("-inf")

    def on_train_end(self, trainer: Trainer) -> None:
        """The last counters."""
        self.beat(trainer, self.phase, True)

    def beat(self, trainer: Trainer, phase: str, entered: bool) -> None:
        """Write the file, where it is due."""
        now = time.monotonic()
        wait_s = INTERVAL_S if phase == self.phase else 0.1
        if not entered and now - self._written < wait_s:
            return
        self.phase, self._written = phase, now
        write_heartbeat(
            self.folder,
            phase,
            step=trainer.step,
            total_steps=trainer.config.total_steps,
            env_steps=trainer.env_steps,
            wall_s=now - self._began,
            left_s=self.left_s(trainer),
        )
