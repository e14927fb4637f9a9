"""Observations on their way from numpy to a model: one array, or arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


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
