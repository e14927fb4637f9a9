"""Observations on their way from numpy to a model: one array, or arrays by name, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from worldflux.errors import ShapeMismatchError

from .specs import ModalitySpec


def on_device(
    obs: NDArray[Any] | Mapping[str, NDArray[Any]], device: torch.device | str = "cpu"
) -> Tensor | dict[str, Tensor]:
    """Observations `[N, ...]` as tensors of the same shapes and dtypes on `device`."""
    if isinstance(obs, Mapping):
        return {name: torch.from_numpy(value).to(device) for name, value in obs.items()}
    return torch.from_numpy(obs).to(device)


def steps_as_rows(obs: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
    """Observations `[T, B, ...]` as `[T * B, ...]`, step after step."""
    if isinstance(obs, dict):
        return {name: value.flatten(0, 1) for name, value in obs.items()}
    return obs.flatten(0, 1)


def require_tensor(what: str, value: Any) -> None:
    """Check that a value is a tensor.

    Raises:
        ShapeMismatchError: naming what it is.
    """
    if not isinstance(value, Tensor):
        raise ShapeMismatchError(
            f"{what} is a {type(value).__name__}, expected a torch.Tensor",
            hint="make one: torch.as_tensor(value)",
        )


def named_observations(
    obs: Tensor | Mapping[str, Tensor], modalities: Mapping[str, ModalitySpec]
) -> dict[str, Tensor]:
    """The tensors `[B, ...]` that a model of these modalities takes, by name, shapes checked.

    Raises:
        ShapeMismatchError: naming the modality, the shape expected and the one given.
    """
    if isinstance(obs, Mapping):
        named = obs
    elif len(modalities) == 1:
        named = {next(iter(modalities)): obs}
    else:
        raise ShapeMismatchError(
            f"this model takes named observations {sorted(modalities)}, not one tensor"
        )
    missing = modalities.keys() - named.keys()
    if missing:
        raise ShapeMismatchError(
            f"observation {sorted(missing)[0]!r} is missing; given are {sorted(named)}"
        )
    for name, spec in modalities.items():
        require_tensor(f"observation {name!r}", named[name])
        expected, given = spec.shape, tuple(named[name].shape)
        if given[-len(expected) :] != expected or len(given) == len(expected):
            axes = ", ".join(map(str, expected))
            raise ShapeMismatchError(
                f"observation {name!r} has shape {given}, expected [B, {axes}]"
            )
    return {name: named[name] for name in modalities}
