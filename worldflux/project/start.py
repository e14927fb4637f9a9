"""What a run begins with: the weights of a saved model, and the parts that stay as they are."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from worldflux.core import hub
from worldflux.core.starting import TakenWeights, TaskPlaces, parameters_of, take_weights
from worldflux.core.world_model import WorldModel
from worldflux.errors import ConfigurationError, WorldFluxError
from worldflux.factory import saved_folder
from worldflux.files import sha256_of
from worldflux.layout import CHECKPOINTS, WEIGHTS_FILE
from worldflux.models.registry import saved_config
from worldflux.progress import counted

from .document import shown_path
from .loader import Project
from .manifest import holds_a_run, read_manifest
from .places import run_folder
from .tasks import TaskSet

_MOST_NAMED = 6
# Attribute of `TakenWeights` -> what is said of its tensors.
_SAID = {
    "extended": "extended, with new rows",
    "moved": "rows matched by the names of the tasks",
    "new": "new",
    "unfit": "of another shape, so new",
    "unused": "without a place here",
}


def model_folder(source: str, root: Path = Path()) -> Path:
    """The folder with the weights of a saved model, of a run's best checkpoint or of a hub.

    Args:
        root: what a relative path begins at.
    """
    if hub.is_reference(source):
        return hub.download(source)
    path = root / os.path.expanduser(source)
    return saved_folder(run_folder(path) if path.exists() else path)


def begin(project: Project, model: WorldModel, say: Callable[[str], None]) -> dict[str, Any] | None:
    """Give a new run's model the weights that it begins with; returns the manifest's entry.

    The entry names every tensor, and has the hash of each that is frozen. None where nothing is
    taken and nothing frozen.
    """
    source, names = project.start_from, project.training_config().freeze
    entry: dict[str, Any] = {"source": source}
    key: tuple[str, ...] = ("start_from" if project.sections.start_from else "model",)
    try:
        if source is not None:
            entry |= _taken(project, source, model, say)
        key = "training", "freeze"
        frozen = parameters_of(model, names)
    except WorldFluxError as error:
        error.where = error.where or project.where(*key)
        raise
    return {**entry, "frozen": tensor_hashes(frozen)} if source or names else None


def _taken(
    project: Project, source: str, model: WorldModel, say: Callable[[str], None]
) -> dict[str, Any]:
    folder = model_folder(source, project.root)
    there, here = saved_config(folder).model_type, model.config.model_type
    if there != here:
        raise ConfigurationError(
            f"{source} is a model of the family {there!r}, and this project's is {here!r}",
            hint=f'begin with its own family: model = "{shown_path(folder)}"',
        )
    known, here_named = _recorded_tasks(folder), [task.name for task in project.sections.tasks]
    tasks = _task_places(known, here_named) if known and here_named else None
    taken = take_weights(model, folder / WEIGHTS_FILE, tasks)
    say(f"start: {counted(len(taken.taken), 'tensor')} taken from {shown_path(folder)}")
    for line in _exceptions(taken):
        say(f"start: {line}")
    sha256 = sha256_of(folder / WEIGHTS_FILE)
    entry = {"checkpoint": folder.name, "weights_sha256": sha256, **asdict(taken)}
    if tasks is not None and model.axes_of_tasks().keys() & {*taken.taken, *taken.extended}:
        say(f"start: {_tasks_line(tasks, here_named, known)}")
        entry["tasks"] = dict(zip(here_named, tasks.places, strict=True))
    return entry


def _recorded_tasks(folder: Path) -> tuple[str, ...]:
    """Names of the tasks of the run that a checkpoint is of; none where nothing says them."""
    run = folder.parent.parent
    if folder.parent.name != CHECKPOINTS or not holds_a_run(run):
        return ()
    recorded = TaskSet.recorded(read_manifest(run).get("tasks"))
    return recorded.names if recorded else ()


def _task_places(known: Sequence[str], names: Sequence[str]) -> TaskPlaces:
    return TaskPlaces(
        tuple(known.index(name) if name in known else None for name in names), len(known)
    )


def _tasks_line(tasks: TaskPlaces, names: Sequence[str], known: Sequence[str]) -> str:
    """Which task of this project is which of the source, by number from 0 on."""
    said = []
    for here, (name, there) in enumerate(zip(names, tasks.places, strict=True)):
        place = "new" if there is None else f"{there} there, {here} here"
        said.append(f"{name} ({place})")
    left_out = [name for name in known if name not in names]
    without = f"; left out: {', '.join(left_out)}" if left_out else ""
    return f"tasks matched by name: {', '.join(said)}{without}"


def _exceptions(taken: TakenWeights) -> list[str]:
    lines = []
    for kind, words in _SAID.items():
        names: tuple[str, ...] = getattr(taken, kind)
        more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
        if names:
            lines.append(f"{words}: {', '.join(names[:_MOST_NAMED])}{more}")
    return lines


def tensor_hashes(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """SHA-256 of the bytes of each tensor."""
    return {
        name: hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        for name, tensor in tensors.items()
    }


def changed_tensors(hashes: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Collection[str]:
    """Names of tensors that are missing, or not those that were hashed."""
    now = tensor_hashes({name: tensors[name] for name in hashes if name in tensors})
    return [name for name, sha256 in hashes.items() if now.get(name) != sha256]
