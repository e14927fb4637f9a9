"""A saved model: `config.json` and `model.safetensors`; reading one never executes anything."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from worldflux.errors import CheckpointError
from worldflux.files import replacing
from worldflux.layout import CONFIG_FILE as CONFIG_FILE
from worldflux.layout import WEIGHTS_FILE as WEIGHTS_FILE

from .components import COMPONENT_SLOTS

if TYPE_CHECKING:
    from .world_model import WorldModel

MAX_HEADER_BYTES = 100 << 20


def save_model(model: WorldModel, directory: Path) -> None:
    """Write both files into `directory`, each aside first and then renamed."""
    directory.mkdir(parents=True, exist_ok=True)
    save_tensors(model.state_dict(), directory / WEIGHTS_FILE)
    model.config.save(directory / CONFIG_FILE)


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write named tensors of any shape as safetensors, aside first and then renamed."""
    # Copies, because safetensors refuses shared memory.
    plain = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as partial:
        save_file(plain, partial)


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, which names its tensors; the tensors are not read."""
    if not path.is_file() or path.is_symlink():
        raise CheckpointError("no regular file here", where=str(path))
    size = path.stat().st_size
    with path.open("rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        if size < 10 or header_size > min(size - 8, MAX_HEADER_BYTES):
            raise CheckpointError("not a safetensors file: its header is damaged", where=str(path))
        try:
            return dict(json.loads(file.read(header_size)))
        except (ValueError, TypeError, RecursionError):
            raise CheckpointError(
                "not a safetensors file: its header is not JSON", where=str(path)
            ) from None


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file: tensors of any shape by name, its header checked first."""
    read_header(path)
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"damaged safetensors file: {error}", where=str(path)) from None


def load_weights(module: nn.Module, path: Path, replaced: Collection[str] = ()) -> None:
    """Load a safetensors file into `module`; every tensor is checked before anything changes.

    Slots in `replaced` hold parts that the caller gave: what the file lacks of them is kept.
    """
    tensors = load_tensors(path)
    own = module.state_dict()
    for name in sorted(own.keys() - tensors.keys()):
        if name.partition(".")[0] not in replaced:
            raise CheckpointError(f"tensor {name!r} is missing", where=str(path))
    for name in sorted(tensors.keys() - own.keys()):
        slot = name.partition(".")[0]
        raise CheckpointError(
            f"tensor {name!r} does not belong to this model",
            where=str(path),
            hint=f"it was saved with a custom component: component_overrides={{{slot!r}: ...}}"
            if slot in COMPONENT_SLOTS
            else None,
        )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(
                f"tensor {name!r} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(own[name].shape)}",
                where=str(path),
            )
        if tensor.is_floating_point() != own[name].is_floating_point():
            raise CheckpointError(
                f"tensor {name!r} has type {tensor.dtype}, expected {own[name].dtype}",
                where=str(path),
            )
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"tensor {name!r} is not finite", where=str(path))
    module.load_state_dict({**own, **tensors})
