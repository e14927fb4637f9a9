"""Training on from a saved model: which of its weights another model takes, and what stays frozen.

Only weights are taken; the run starts with a new optimiser, an empty replay and new random streams.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from worldflux.errors import CheckpointError, ConfigurationError, did_you_mean

from .saved_model import load_tensors


class Startable(nn.Module):
    """A model whose parts are named, so that they can be taken from another one and frozen.

    A part is called after its submodule, or as the submodule's attribute `part_name` says.
    """

    def learning_parts(self) -> dict[str, str]:
        """Name -> submodule of each part with learnable weights; of an only child, its children."""
        found = list(_learning(self, ""))
        if len(found) == 1:
            found = list(_learning(self.get_submodule(found[0]), f"{found[0]}.")) or found
        named = {place: self.get_submodule(place) for place in found}
        return {getattr(m, "part_name", p.rpartition(".")[2]): p for p, m in named.items()}

    def adapted(self, name: str, saved: Tensor, own: Tensor) -> Tensor | None:
        """What the tensor `name` of a saved model, any shape, becomes in this one, shaped as `own`;
        None: it does not fit.

        A submodule with a method `adapted(name, saved, own)` decides for its own tensors.
        """
        owner, _, leaf = name.rpartition(".")
        module = self.get_submodule(owner)
        decides: Callable[..., Tensor | None] | None = getattr(module, "adapted", None)
        if module is not self and decides is not None:
            return decides(leaf, saved, own)
        same = saved.shape == own.shape and saved.is_floating_point() == own.is_floating_point()
        return saved if same else None

    def axes_of_tasks(self) -> dict[str, int]:
        """Tensor -> its axis whose last rows are those of the tasks, one each.

        Submodules name their own in an attribute `task_axes`.
        """
        modules = self.named_modules(remove_duplicate=False)
        return {
            f"{place}.{name}": axis
            for place, module in modules
            for name, axis in getattr(module, "task_axes", {}).items()
        }


def _learning(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        if any(parameter.requires_grad for parameter in child.parameters()):
            yield prefix + name


@dataclass(frozen=True)
class TaskPlaces:
    """Where the tasks of a model, in its order, are among the `count` of a saved one; None: new."""

    places: tuple[int | None, ...]
    count: int

    def rows(self, saved: Tensor, own: Tensor, axis: int) -> Tensor:
        """`saved` with the rows of the tasks in the order of `own`, whose rows new ones keep.

        As it is where it differs in more than the number of tasks.
        """
        first = saved.shape[axis] - self.count
        expected = list(saved.shape)
        expected[axis] = first + len(self.places)
        if first < 0 or list(own.shape) != expected:
            return saved
        found = [saved.narrow(axis, 0, first)]
        for here, there in enumerate(self.places):
            source, place = (own, here) if there is None else (saved, there)
            found.append(source.narrow(axis, first + place, 1))
        return torch.cat(found, axis)

    @property
    def moved(self) -> bool:
        """Whether a task that the saved model has is at another place here."""
        return any(there not in (None, here) for here, there in enumerate(self.places))


@dataclass(frozen=True)
class TakenWeights:
    """What a model took of a saved one, by names of tensors.

    Attributes:
        taken: whole.
        extended: their saved rows; the other rows are new.
        moved: of these, and of the whole ones, those whose rows follow the tasks to other places.
        new: what the saved model lacks.
        unfit: of another shape there, so new here.
        unused: what only the saved model has.
    """

    taken: tuple[str, ...]
    extended: tuple[str, ...]
    new: tuple[str, ...]
    unfit: tuple[str, ...]
    unused: tuple[str, ...]
    moved: tuple[str, ...] = ()


def take_weights(model: Startable, path: Path, tasks: TaskPlaces | None = None) -> TakenWeights:
    """Load what fits `model` of a safetensors file, and report it.

    Args:
        tasks: the places of the model's tasks in the file; None: as they are here.

    Raises:
        CheckpointError: for a damaged file, or one of which nothing fits.
    """
    saved, own = load_tensors(path), model.state_dict()
    for name, tensor in saved.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"tensor {name!r} is not finite", where=str(path))
    both = [name for name in own if name in saved]
    axes = {name: axis for name, axis in model.axes_of_tasks().items() if tasks and name in both}
    placed = _placed(saved, own, axes, tasks)
    fitted = {name: model.adapted(name, placed[name], own[name]) for name in both}
    loaded = {name: tensor for name, tensor in fitted.items() if tensor is not None}
    if not loaded:
        raise CheckpointError("no tensor of this model fits the one to train", where=str(path))
    model.load_state_dict({**own, **loaded})
    whole = {name for name, tensor in loaded.items() if tensor.shape == saved[name].shape}
    if tasks is not None and None in tasks.places:
        whole -= axes.keys()
    moved = axes.keys() & loaded.keys() if tasks is not None and tasks.moved else set()
    return TakenWeights(
        taken=tuple(sorted(whole)),
        extended=tuple(sorted(loaded.keys() - whole)),
        new=tuple(sorted(own.keys() - saved.keys())),
        unfit=tuple(sorted(set(both) - loaded.keys())),
        unused=tuple(sorted(saved.keys() - own.keys())),
        moved=tuple(sorted(moved)),
    )


def _placed(
    saved: dict[str, Tensor],
    own: Mapping[str, Tensor],
    axes: Mapping[str, int],
    tasks: TaskPlaces | None,
) -> dict[str, Tensor]:
    """The saved tensors, those of the tasks in the order of `own`."""
    if tasks is None:
        return saved
    return saved | {name: tasks.rows(saved[name], own[name], axis) for name, axis in axes.items()}


def parameters_of(model: Startable, names: Collection[str]) -> dict[str, nn.Parameter]:
    """The parameters of the parts of these names.

    Raises:
        ConfigurationError: for a part that the model does not have.
    """
    parts, found = model.learning_parts(), {}
    for name in names:
        if name not in parts:
            raise ConfigurationError(
                f"training.freeze: this model has no part {name!r}; it has {', '.join(parts)}",
                hint=did_you_mean(name, parts),
            )
        for parameter, weights in model.get_submodule(parts[name]).named_parameters():
            found[f"{parts[name]}.{parameter}"] = weights
    return found


def freeze(model: Startable, names: Collection[str]) -> None:
    """Stop the parts of these names from learning.

    Raises:
        ConfigurationError: for a part that the model does not have, or where none is left.
    """
    for weights in parameters_of(model, names).values():
        weights.requires_grad_(False)
    if names and not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigurationError("training.freeze leaves nothing to learn")
