"""Which observations are images, and where their channels are."""

from __future__ import annotations

from typing import Any, TypeGuard

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

Array = NDArray[Any]

SMALLEST_IMAGE = 16  # sides; a smaller uint8 matrix is a board, and is read as a vector
_COMMON = (1, 3, 4)  # channels of grey, RGB and RGBA


class ImageSpace(spaces.Box):
    """A Box of images whose channel axis is known and not read from its sides.

    Args:
        channel_axis: 0, 2, or None for `[H, W]`.
        like: its lowest and highest bound and its dtype hold here too; bytes by default.
    """

    def __init__(
        self, shape: tuple[int, ...], channel_axis: int | None, like: spaces.Box | None = None
    ) -> None:
        low, high, dtype = (
            (0, 255, np.uint8) if like is None else (like.low.min(), like.high.max(), like.dtype)
        )
        super().__init__(low, high, shape, dtype)
        self.channel_axis = channel_axis


def is_image(space: spaces.Space) -> TypeGuard[spaces.Box]:
    """Whether the values of a space are images: bytes, bits or shares of 1, in 3 axes.

    A matrix `[H, W]` is one where it holds bytes and both sides are at least `SMALLEST_IMAGE`.
    """
    if not isinstance(space, spaces.Box) or space.dtype is None or 0 in space.shape:
        return False
    if isinstance(space, ImageSpace):
        return True
    if len(space.shape) == 2:
        return space.dtype == np.uint8 and min(space.shape) >= SMALLEST_IMAGE
    if len(space.shape) != 3:
        return False
    if space.dtype.kind == "f":
        return bool((space.low == 0).all() and (space.high == 1).all())
    return bool((space.low >= 0).all() and (space.high <= 255).all())


def channel_axis(space: spaces.Box) -> int | None:
    """The axis of an image's channels: 0, 2, or None for `[H, W]`.

    One or the other end is: the one of 1, 3 or 4, else the one that is smaller than both others,
    else the one that differs more from the middle; the last, as in Gymnasium, if both are alike.
    """
    if isinstance(space, ImageSpace):
        return space.channel_axis
    if len(space.shape) == 2:
        return None
    first, middle, last = space.shape
    if first in _COMMON or last in _COMMON:
        return 2 if last in _COMMON else 0
    if min(first, last) < middle:
        return 0 if first < last else 2
    return 0 if abs(first - middle) > abs(last - middle) else 2


def channels_first(space: spaces.Box, images: Array) -> Array:
    """Images `[..., H, W, C]`, `[..., H, W]` or `[..., C, H, W]` of a space as `[..., C, H, W]`."""
    axis = channel_axis(space)
    if axis is None:
        return images[..., None, :, :]
    return np.moveaxis(images, -1, -3) if axis == 2 else images
