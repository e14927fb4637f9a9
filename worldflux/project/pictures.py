"""A picture or video that cannot be written costs itself and a warning, never the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from worldflux.training.trainer import Trainer


@contextmanager
def picture(trainer: Trainer, what: str) -> Iterator[None]:
    """Report what prevents the drawing of `what` to the trainer's callbacks, and continue."""
    try:
        yield
    except Exception as error:
        for callback in trainer.callbacks:
            callback.on_warning(trainer, f"no {what}: {type(error).__name__}: {error}")


def announce(trainer: Trainer, name: str, path: Path) -> None:
    """Tell the trainer's callbacks that a picture or video was written."""
    for callback in trainer.callbacks:
        callback.on_media(trainer, name, path)
