"""Where numbers go besides the run's own files: TensorBoard, Weights & Biases, trackio.

Each is an extra of its own and writes on this machine only: W&B runs offline unless WANDB_MODE
says otherwise, trackio keeps its database in TRACKIO_DIR.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from worldflux.errors import MissingDependencyError

from .config import LOGGERS as LOGGERS

PROJECT = "worldflux"
_TRACKIO_OWN = ("step", "time")  # columns that trackio writes itself


class NumberLog(Protocol):
    """What a logging callback writes numbers to."""

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Write numbers by name at a gradient update."""
        ...

    def close(self) -> None:
        """Write out what is buffered."""
        ...


def require(name: str) -> None:
    """Check that the package behind a logger is installed, before a run begins.

    Raises:
        MissingDependencyError: with the command that installs it.
    """
    # Looked for, not imported: trackio reads its folder from the environment when it is imported.
    if importlib.util.find_spec(name) is None:
        raise MissingDependencyError(
            f"logging to {name} needs the package {name}", hint=f"pip install 'worldflux[{name}]'"
        )


def open_log(name: str, folder: Path) -> NumberLog:
    """Open one of `LOGGERS` below a folder; `require` has been asked before."""
    kinds: dict[str, Callable[[Path], NumberLog]] = {
        "tensorboard": TensorBoardLog,
        "wandb": WandbLog,
        "trackio": TrackioLog,
    }
    folder.mkdir(parents=True, exist_ok=True)
    return kinds[name](folder)


class TensorBoardLog:
    """Event files in the folder, for `tensorboard --logdir`."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=str(folder))

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """One scalar for each number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the event file."""
        self._writer.close()


class WandbLog:
    """A Weights & Biases run in the folder; `wandb sync` uploads it."""

    def __init__(self, folder: Path) -> None:
        wandb: Any = importlib.import_module("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(project=PROJECT, dir=str(folder), mode=mode, reinit="create_new")

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """One row. An evaluation shares its update's step with the metrics: both rows count."""
        self._run.log({**numbers, "step": step})

    def close(self) -> None:
        """End the run."""
        self._run.finish()


class TrackioLog:
    """A trackio run in a local database; `trackio show` opens it."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder / "trackio"))
        self._trackio: Any = importlib.import_module("trackio")
        self._trackio.init(project=PROJECT, embed=False)

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """One row at the step."""
        row = {name: value for name, value in numbers.items() if name not in _TRACKIO_OWN}
        self._trackio.log(row, step=step)

    def close(self) -> None:
        """End the run."""
        self._trackio.finish()
