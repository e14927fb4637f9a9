"""Nothing grows: memory, open files, threads and children over many updates and many saves."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path
from typing import Any

from non_finite import batches, trainer_of

from worldflux.training.callbacks import Callback
from worldflux.training.trainer import Trainer


def resources() -> dict[str, int]:
    """Resident bytes, open files, threads and children of this process."""
    status = Path("/proc/self/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) << 10
    tasks = Path("/proc/self/task")
    children = sum(len((t / "children").read_text().split()) for t in tasks.iterdir())
    return {
        "resident": resident,
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(list(tasks.iterdir())),
        "children": children,
    }


class Watch(Callback):
    """Notes the resources after a quarter of the updates and at the end."""

    def __init__(self, updates: int) -> None:
        self.at = {updates // 4, updates}
        self.seen: list[dict[str, int]] = []

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if trainer.step in self.at:
            gc.collect()
            self.seen.append(resources())


def updates(folder: Path, family: str, count: int) -> dict[str, Any]:
    """Growth over the last three quarters of `count` updates, in MiB and in numbers."""
    trainer = trainer_of(family, folder, total_steps=count, save_interval=10 * count)
    watch = Watch(count)
    trainer.add_callback(watch)
    trainer.train(batches(4))
    shutil.rmtree(folder)
    return {"updates": count, **_growth(*watch.seen)}


def cycles(folder: Path, family: str, count: int) -> dict[str, Any]:
    """Growth over `count` saves with a restore after each."""
    trainer = trainer_of(family, folder, total_steps=10 * count, save_interval=1)
    data = batches(4)
    seen = []
    for cycle in range(count + count // 5):  # the first ones fill the allocator's pools
        if cycle == count // 5:
            gc.collect()
            seen.append(resources())
        trainer.train(data, num_steps=1)
        trainer.load_checkpoint()
    gc.collect()
    seen.append(resources())
    shutil.rmtree(folder)
    return {"cycles": count, **_growth(*seen)}


def _growth(first: dict[str, int], last: dict[str, int]) -> dict[str, Any]:
    grown = {name: last[name] - first[name] for name in first}
    return {**grown, "resident": round(grown["resident"] / 2**20, 2)}
