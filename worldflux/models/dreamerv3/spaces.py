"""What DreamerV3 sees and does: observation keys and action parts, read from the configuration."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from worldflux.core.config import DreamerV3Config
from worldflux.errors import ConfigurationError, ShapeMismatchError

DEFAULT_ACTION = "action"


@dataclass(frozen=True)
class ObservationKey:
    """One named observation.

    Attributes:
        kind: "image" (`[C, H, W]`, uint8 or float in [0, 1]), "vector" (real numbers) or
            "discrete" (whole numbers from 0 to classes - 1; -1 is missing), of at least one axis.
    """

    name: str
    kind: Literal["image", "vector", "discrete"]
    shape: tuple[int, ...]
    classes: int = 0

    @property
    def size(self) -> int:
        """Numbers in one observation, after one-hot encoding."""
        return math.prod(self.shape) * max(self.classes, 1)


@dataclass(frozen=True)
class ActionPart:
    """One named action: `width` columns of the action vector, from `start` on."""

    name: str
    kind: Literal["continuous", "discrete"]
    width: int
    start: int

    @property
    def columns(self) -> slice:
        """Its columns of the action vector `[..., A]`."""
        return slice(self.start, self.start + self.width)


def observation_keys(config: DreamerV3Config) -> tuple[ObservationKey, ...]:
    """The observation keys of `config`, sorted by name as the official code sorts them.

    Raises:
        ConfigurationError: for a modality that this family cannot read.
    """
    keys = []
    for name, spec in sorted(config.observation_modalities.items()):
        where = f"observation_modalities[{name!r}]"
        kind, shape = spec.get("kind", "vector"), tuple(spec.get("shape", ()))
        if kind not in ("image", "vector", "discrete"):
            allowed = "expected 'image', 'vector' or 'discrete'"
            raise ConfigurationError(f"kind {kind!r} is not allowed: {allowed}", where=where)
        if kind == "image" and len(shape) != 3:
            raise ConfigurationError(f"an image has shape (C, H, W), not {shape}", where=where)
        if not shape:
            raise ConfigurationError("shape () is not allowed: write (1,)", where=where)
        classes = int(spec.get("classes", 0)) if kind == "discrete" else 0
        if kind == "discrete" and classes < 2:
            raise ConfigurationError("a discrete observation needs classes >= 2", where=where)
        keys.append(ObservationKey(name, kind, shape, classes))
    return tuple(keys)


def action_parts(config: DreamerV3Config) -> tuple[ActionPart, ...]:
    """The actions of `config`: one, or several from `action_spec["parts"]`, sorted by name.

    Several actions at once are written as
    `action_spec={"kind": ..., "dim": total, "parts": {name: {"kind": ..., "dim": width}}}`;
    their columns stand beside one another in the one action vector of `action_dim` numbers.

    Raises:
        ConfigurationError: for a part that this family cannot act with, or another total width.
    """
    parts: Mapping[str, Mapping[str, Any]] = config.action_spec.get("parts") or {
        DEFAULT_ACTION: {"kind": config.action_type, "dim": config.action_dim}
    }
    found, start = [], 0
    for name, spec in sorted(parts.items()):
        kind, width = spec.get("kind"), spec.get("dim")
        if kind not in ("continuous", "discrete") or not isinstance(width, int) or width < 1:
            raise ConfigurationError(
                f"DreamerV3 takes parts of kind 'continuous' or 'discrete' with a dim >= 1, "
                f"not {dict(spec)!r}",
                where=f"action_spec[{name!r}]",
            )
        found.append(ActionPart(name, kind, width, start))
        start += width
    if start != config.action_dim:
        raise ConfigurationError(
            f"the parts have {start} columns together, action_dim is {config.action_dim}",
            where="action_spec",
        )
    return tuple(found)


def rows_of_indices(parts: Sequence[ActionPart], indices: Tensor) -> Tensor:
    """Action rows `[..., A]` of one index for each part, `[..., parts]`.

    Raises:
        ShapeMismatchError: when a part is continuous, or an index is none of its part's.
    """
    if any(part.kind != "discrete" for part in parts) or indices.shape[-1:] != (len(parts),):
        raise ShapeMismatchError(
            f"indices of shape {tuple(indices.shape)} do not name one choice for each of the "
            f"{len(parts)} actions {[part.name for part in parts]}"
        )
    columns = []
    for part, chosen in zip(parts, indices.unbind(-1), strict=True):
        if chosen.numel() and (int(chosen.min()) < 0 or int(chosen.max()) >= part.width):
            raise ShapeMismatchError(f"action {part.name!r} is an index below {part.width}")
        columns.append(functional.one_hot(chosen.long(), part.width))
    return torch.cat(columns, -1).to(torch.float32)


@functools.cache
def module_name(key: str) -> str:
    """The name under which a `ModuleDict` holds the layers of an observation or action of any name.

    Names that it refuses (with a dot, or of an attribute of its own) are written "~" and escaped.
    """
    if key and "." not in key and key[0] != "~" and not hasattr(nn.ModuleDict(), key):
        return key
    return "~" + key.replace("%", "%25").replace(".", "%2E")


def unit_image(image: Tensor) -> Tensor:
    """uint8 pixels become float in [0, 1]; a float image is in that range already."""
    return image.float() / 255 if image.dtype == torch.uint8 else image.float()
