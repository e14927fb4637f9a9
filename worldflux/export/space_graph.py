"""Observations and actions of an environment's spaces as tensors: the same as `envs.observations`
and `envs.actions`, of one environment and as part of a graph."""

from __future__ import annotations

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from worldflux.envs.actions import as_classes
from worldflux.envs.spaces import channel_axis, is_image, is_whole


def model_observation(space: spaces.Space, value: Tensor) -> Tensor:
    """A part's value as the model observes it: bytes `[C, H, W]`, or a float32 vector."""
    if is_image(space):
        return _pixels(space, value)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        indices = (value - torch.from_numpy(np.array(space.start))).flatten().unbind()
        widths = np.ravel(space.n if isinstance(space, spaces.Discrete) else space.nvec)
        pairs = zip(indices, widths.tolist(), strict=True)
        return torch.cat([(torch.arange(width) == index).float() for index, width in pairs])
    return value.flatten().float()


def _pixels(space: spaces.Box, value: Tensor) -> Tensor:
    assert space.dtype is not None
    if space.dtype.kind == "b":
        value = value.to(torch.uint8) * 255
    elif space.dtype.kind == "f":
        value = torch.round(value * 255.0)
    axis = channel_axis(space)
    if axis is None:
        value = value.unsqueeze(0)
    elif axis == 2:
        value = value.permute(2, 0, 1)
    return value.to(torch.uint8)


def environment_action(space: spaces.Space, row: Tensor) -> Tensor:
    """The environment's own action of a model's action row `[A]`."""
    space = as_classes(space)
    if isinstance(space, spaces.Discrete):
        return row.argmax(-1) + int(space.start)
    if isinstance(space, spaces.MultiDiscrete):
        parts = row.split(np.ravel(space.nvec).tolist())
        chosen = torch.stack([part.argmax(-1) for part in parts]).reshape(space.shape)
        return (chosen + torch.from_numpy(space.start)).to(_dtype(space))
    assert isinstance(space, spaces.Box)
    low, high = (torch.from_numpy(np.float32(end)) for end in (space.low, space.high))
    unit = row.clamp(-1.0, 1.0).reshape(space.shape)
    if is_whole(space):
        chosen = low + torch.floor((unit + 1.0) / 2.0 * (high - low + 1.0))
        return torch.minimum(chosen, high).to(_dtype(space))
    middle, half = (high + low) / 2, (high - low) / 2
    return torch.minimum(torch.maximum(middle + half * unit, low), high)


def _dtype(space: spaces.Space) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, str(space.dtype))
    return dtype
