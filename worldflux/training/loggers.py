"""Where a run is logged besides its own files. A logger is a class here and a row in `LOGGERS`.

Each is an extra with its name and writes on this machine only, unless W&B is set to be online.
"""

from __future__ import annotations

import html
import importlib
import io
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from worldflux.errors import ConfigurationError, did_you_mean
from worldflux.files import finite, write_text
from worldflux.optional import require

ID_FILE = "tracking_id"
_TRACKIO_OWN = ("step", "time")  # columns that trackio writes itself
_DESCRIBED = ("project", "run", "environment", "model", "seed", "parameters", "data_mode", "device")
_PICTURE = ".png"


@dataclass(frozen=True)
class Tracking:
    """How the run is called, here and by Weights & Biases and trackio.

    What is None follows W&B's own variables (`WANDB_PROJECT`, `WANDB_NAME`, `WANDB_RUN_GROUP`,
    `WANDB_TAGS`, `WANDB_NOTES`, `WANDB_ENTITY`, `WANDB_MODE`), then the defaults: the project's
    name, a name that W&B makes up, and the mode "offline". trackio takes `project`, `name` and
    `group`.
    """

    project: str | None = None  #: unset: WANDB_PROJECT, or this project's name
    name: str | None = None  #: of the run; unset: WANDB_NAME
    group: str | None = None  #: runs that belong together; unset: WANDB_RUN_GROUP
    tags: list[str] = field(default_factory=list)  #: labels of the run
    notes: str | None = None  #: what the run is for; unset: WANDB_NOTES
    entity: str | None = None  #: team or user (W&B)
    #: of W&B; unset: WANDB_MODE, or "offline"
    mode: Literal["online", "offline", "disabled"] | None = None


@dataclass(frozen=True)
class TrackedRun:
    """What a logger knows of a run; `step` is the update that it starts or continues at."""

    folder: Path
    tracking: Tracking
    configuration: Mapping[str, Any]
    step: int

    def id(self) -> str:
        """The same for every session of this run: kept in its folder, first set by WANDB_RUN_ID."""
        file = self.folder / ID_FILE
        if not file.is_file():
            write_text(file, os.environ.get("WANDB_RUN_ID") or uuid.uuid4().hex[:8])
        return file.read_text(encoding="utf-8").strip()

    def project(self) -> str:
        """The project on the tracker: as set, else this project's own name."""
        return self.tracking.project or str(self.configuration.get("project_name", "worldflux"))

    def description(self) -> str:
        """Markdown: what this run is, in a few lines."""
        facts = {"project": self.project(), "run": self.tracking.name, **self.configuration}
        environment = facts.get("environment")
        if isinstance(environment, Mapping):
            facts["environment"] = environment.get("id")
        shown = {name: facts.get(name) for name in _DESCRIBED if facts.get(name) is not None}
        rows = [f"| {name} | {value} |" for name, value in shown.items()]
        return "\n".join(["| | |", "|---|---|", *rows])


class Logger(Protocol):
    """Takes numbers, media and texts by name; opened with the run that it logs."""

    def __init__(self, run: TrackedRun) -> None: ...

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        """Write numbers at a gradient update."""
        ...

    def add_media(self, name: str, path: Path, step: int) -> None:
        """Write a picture (`.png`) or a video (`.mp4`, `.gif`)."""
        ...

    def add_text(self, name: str, text: str, step: int) -> None:
        """Write a text in Markdown."""
        ...

    def close(self) -> None:
        """Write out what is buffered."""
        ...


class TensorBoardLogger:
    """Event files in the folder, for `tensorboard --logdir`.

    The configuration is a text, and its numbers and words are hyperparameters (HPARAMS).
    """

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        purged = run.step + 1 if run.step else None  # what was logged after the checkpoint is void
        self._writer: Any = SummaryWriter(log_dir=str(run.folder), purge_step=purged)
        text = json.dumps(finite(run.configuration), indent=2, default=str)
        self.add_text("configuration", f"```json\n{text}\n```", run.step)
        parameters = dict(_scalars(run.configuration))
        for summary in hparams(parameters, {"eval/return_mean": 0}):
            self._add_summary(summary)

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def add_media(self, name: str, path: Path, step: int) -> None:
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        from worldflux.evaluation.video import to_gif

        # A video is an animated image.
        data = path.read_bytes() if path.suffix == _PICTURE else to_gif(path)
        with Image.open(io.BytesIO(data)) as opened:
            width, height = opened.size
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._add_summary(summary, step)

    def _add_summary(self, summary: Any, step: int | None = None) -> None:
        self._writer.file_writer.add_summary(summary, step)

    def add_text(self, name: str, text: str, step: int) -> None:
        self._writer.add_text(name, text, step)

    def close(self) -> None:
        self._writer.close()


def _scalars(configuration: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers and words of a configuration by dotted name."""
    for name, value in configuration.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{prefix}{name}.")
        elif isinstance(value, (bool, int, float, str)):
            yield f"{prefix}{name}", value


class WandbLogger:
    """A Weights & Biases run in the folder; where it is offline, `wandb sync` uploads it."""

    def __init__(self, run: TrackedRun) -> None:
        self._wandb: Any = importlib.import_module("wandb")
        tracking = run.tracking
        self._run = self._wandb.init(
            project=tracking.project or os.environ.get("WANDB_PROJECT") or run.project(),
            name=tracking.name,
            group=tracking.group,
            tags=tracking.tags or None,
            notes=tracking.notes,
            entity=tracking.entity,
            mode=wandb_mode(tracking),
            dir=str(run.folder),
            id=run.id(),
            resume="allow",
            config=dict(run.configuration),
            allow_val_change=True,  # a resumed run may have another number of updates
            reinit="create_new",
        )
        self._run.define_metric("*", step_metric="step")

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        # As a column: an evaluation shares its step with the metrics, and both rows count.
        self._run.log({**numbers, "step": step})

    def add_media(self, name: str, path: Path, step: int) -> None:
        kind = self._wandb.Image if path.suffix == _PICTURE else self._wandb.Video
        self._run.log({name: kind(str(path)), "step": step})

    def add_text(self, name: str, text: str, step: int) -> None:
        page = self._wandb.Html(f"<pre>{html.escape(text)}</pre>")
        self._run.log({name: page, "step": step})

    def close(self) -> None:
        self._run.finish()


def wandb_mode(tracking: Tracking) -> str:
    """Offline unless `mode` or WANDB_MODE says otherwise: nothing leaves the machine unasked."""
    return tracking.mode or os.environ.get("WANDB_MODE") or "offline"


class TrackioLogger:
    """A trackio run in a local database; `trackio show` opens it."""

    def __init__(self, run: TrackedRun) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.folder / "trackio"))
        self._trackio: Any = importlib.import_module("trackio")
        group = {"group": run.tracking.group} if run.tracking.group else {}
        self._trackio.init(
            project=run.project(),
            name=run.tracking.name or run.id(),  # trackio finds a run again by its name
            config=finite(dict(run.configuration)),
            resume="allow",
            embed=False,
            **group,
        )

    def add(self, numbers: Mapping[str, float], step: int) -> None:
        row = {name: value for name, value in numbers.items() if name not in _TRACKIO_OWN}
        self._trackio.log(row, step=step)

    def add_media(self, name: str, path: Path, step: int) -> None:
        kind = self._trackio.Image if path.suffix == _PICTURE else self._trackio.Video
        self._trackio.log({name: kind(str(path))}, step=step)

    def add_text(self, name: str, text: str, step: int) -> None:
        self._trackio.log({name: self._trackio.Markdown(text)}, step=step)

    def close(self) -> None:
        self._trackio.finish()


LOGGERS: dict[str, type[Logger]] = {
    "tensorboard": TensorBoardLogger,
    "wandb": WandbLogger,
    "trackio": TrackioLogger,
}
"""Each by its name in `training.log_to`, which is also its package and its extra."""


def require_logger(name: str) -> None:
    """Refuse a logger that does not exist, or whose package is not installed."""
    if name not in LOGGERS:
        known = ", ".join(map(repr, LOGGERS))
        raise ConfigurationError(
            f"no logger {name!r}: known are {known}", hint=did_you_mean(name, LOGGERS)
        )
    # Searched for, not imported: trackio reads its folder from the environment on import.
    require(f"logging to {name}", name, name)


def open_logger(name: str, run: TrackedRun) -> Logger:
    """Open one of `LOGGERS` in the run's folder; `require_logger` has been called before."""
    run.folder.mkdir(parents=True, exist_ok=True)
    return LOGGERS[name](run)
