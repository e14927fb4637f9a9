"""Weights that a learner publishes, and whoever acts takes over between two answers."""

from __future__ import annotations

import copy
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from worldflux.core.saved_model import load_weights, save_model
from worldflux.core.world_model import WorldModel
from worldflux.errors import CheckpointError, StorageError
from worldflux.files import sha256_of
from worldflux.layout import PUBLISHED, WEIGHTS_FILE
from worldflux.training.callback import Callback
from worldflux.training.checkpoints import CheckpointStore, check
from worldflux.training.trainer import Trainer

PUBLISH_S = 2.0
LOOK_S = 0.2


class PublishWeights(Callback):
    """Publishes the weights that evaluations use, below the run's folder, every `PUBLISH_S`.

    Args:
        reader: the process that acts with them; a warning says when it has ended.
    """

    def __init__(self, run: Path, reader: subprocess.Popen[bytes]) -> None:
        self._store = CheckpointStore(run / PUBLISHED)
        self._reader: subprocess.Popen[bytes] | None = reader
        self._published_at = 0.0

    def on_train_begin(self, trainer: Trainer) -> None:
        self._begin_again(trainer)

    def on_restore(self, trainer: Trainer, path: Path) -> None:
        self._begin_again(trainer)

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if time.monotonic() - self._published_at >= PUBLISH_S:
            self._publish(trainer)
            if self._reader is not None and self._reader.poll() is not None:
                code = self._reader.returncode
                trainer.warn(f"serve_ended: exit code {code}; training continues")
                self._reader = None

    def on_train_end(self, trainer: Trainer) -> None:
        self._publish(trainer)

    def _begin_again(self, trainer: Trainer) -> None:
        """Later updates, of an earlier start, no longer count."""
        shutil.rmtree(self._store.root, ignore_errors=True)
        self._publish(trainer)

    def _publish(self, trainer: Trainer) -> None:
        try:
            with trainer.average.applied(trainer.model) if trainer.average else nullcontext():
                self._store.save(trainer.step, lambda folder: save_model(trainer.model, folder))
            self._store.prune(trainer.step, set())
        except StorageError as error:
            trainer.warn(f"weights were not published: {error.message}")
        self._published_at = time.monotonic()


@dataclass(frozen=True)
class Weights:
    """A model to act with: its update (None of a saved model), file, and its file's SHA-256."""

    model: WorldModel
    update: int | None
    file: Path
    sha256: str


def weights_of(model: WorldModel, folder: Path) -> Weights:
    """Those that were loaded from a checkpoint or saved model."""
    number = folder.name.removeprefix("step-")
    file = folder / WEIGHTS_FILE
    return Weights(model, int(number) if number.isdecimal() else None, file, sha256_of(file))


def newest(run: Path) -> Path | None:
    """The folder of the newest published weights of a run."""
    store = CheckpointStore(run / PUBLISHED)
    steps = store.steps()
    return store.path(steps[-1]) if steps else None


class NewestWeights(threading.Thread):
    """Loads what is published into a second model while the first one acts; they then swap roles.

    Args:
        take: called with new weights, from this thread; the last ones are no longer used when it
            returns.
        say: receives why some could not be loaded; the last ones then stay in use.
    """

    def __init__(
        self,
        run: Path,
        first: Weights,
        take: Callable[[Weights], object],
        say: Callable[[str], object],
    ) -> None:
        super().__init__(daemon=True)
        self._run, self._used, self._take, self._say = run, first, take, say
        self._spare = copy.deepcopy(first.model)
        self._seen: tuple[str, int] | None = None
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(LOOK_S):
            folder = newest(self._run)
            with suppress(FileNotFoundError):  # newer ones took their place meanwhile
                if folder is not None:
                    self._look(folder)

    def stop(self) -> None:
        self._ended.set()
        self.join()

    def _look(self, folder: Path) -> None:
        found = (folder.name, (folder / WEIGHTS_FILE).stat().st_mtime_ns)
        if found == self._seen:
            return
        try:
            check(folder)
            load_weights(self._spare, folder / WEIGHTS_FILE)
            weights = weights_of(self._spare, folder)
            self._take(weights)
            self._spare, self._used = self._used.model, weights
        except (CheckpointError, StorageError) as error:
            if folder.exists():
                self._say(f"warning: published weights are not used: {error}")
        self._seen = found
