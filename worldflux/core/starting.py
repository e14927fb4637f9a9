"""Training on from a saved model: which of its weights another model takes, and what stays frozen.

Only weights are taken; the run starts with a new optimiser, an empty replay and new random streams.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

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


def _learning(module: nn.Module, prefix: str) -> Iterator[str]:
    for name, child in module.named_children():
        if any(parameter.requires_grad for parameter in child.parameters()):
            yield prefix + name


@dataclass(frozen=True)
class TakenWeights:
    """What a model took of a saved one, by names of tensors.

    Attributes:
        taken: whole.
        extended: their saved rows; the other rows are new.
        new: what the saved model lacks.
        unfit: of another shape there, so new here.
        unused: what only the saved model has.
    """

    taken: tuple[str, ...]
    extended: tuple[str, ...]
    new: tuple[str, ...]
    unfit: tuple[str, ...]
    unused: tuple[str, ...]


def take_weights(model: Startable, path: Path) -> TakenWeights:
    """Load what fits `model` of a safetensors file, and report it.

    Raises:
        CheckpointError: for a damaged file, or one of which nothing fits.
    """
    saved, own = load_tensors(path), model.state_dict()
    for name, tensor in saved.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"tensor {name!r} is not finite", where=str(path))
    both = [name for name in own if name in saved]
    fitted = {name: model.adapted(name, saved[name], own[name]) for name in both}
    loaded = {name: tensor for name, tensor in fitted.items() if tensor is not None}
    if not loaded:
        raise CheckpointError("no tensor of this model fits the one to train", where=str(path))
    model.load_state_dict({**own, **loaded})
    whole = {name for name, tensor in loaded.items() if tensor.shape == saved[name].shape}
    return TakenWeights(
        taken=tuple(sorted(whole)),
        extended=tuple(sorted(loaded.keys() - whole)),
        new=tuple(sorted(own.keys() - saved.keys())),
        unfit=tuple(sorted(set(both) - loaded.keys())),
        unused=tuple(sorted(saved.keys() - own.keys())),
    )


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
