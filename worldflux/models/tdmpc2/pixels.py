"""Pixel observations of TD-MPC2: random shifts and a convolutional encoder.

Shape legend: R rows (any flattened leading axes), C channels of the stack, 64x64 pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldflux.errors import ConfigurationError
from worldflux.models.tdmpc2.fast_cpu import simnorm

IMAGE_SIZE = 64
SHIFT_PAD = 3
# (kernel, stride) of each convolution; 64 -> 29 -> 13 -> 6 -> 4 pixels a side.
CONVOLUTIONS = ((7, 2), (5, 2), (3, 2), (3, 1))
_LAST_SIDE = 4


def shift_offsets(rows: int, device: torch.device) -> Tensor:
    """Random whole-pixel shifts in x and y, [R, 1, 1, 2] with entries in 0..6, as floats."""
    return torch.randint(0, 2 * SHIFT_PAD + 1, (rows, 1, 1, 2), device=device).float()


def shift_images(images: Tensor, offsets: Tensor) -> Tensor:
    """Shift each image by up to three pixels either way, edges replicated.

    Args:
        images: floats [R, C, 64, 64].
        offsets: [R, 1, 1, 2] from `shift_offsets`; (3, 3) is the identity.

    Returns:
        [R, C, 64, 64], by bilinear sampling, which here lands on whole pixels up to rounding.
    """
    side = images.shape[-1]
    padded_side = side + 2 * SHIFT_PAD
    padded = F.pad(images, (SHIFT_PAD,) * 4, mode="replicate")
    half_pixel = 1.0 / padded_side
    line = torch.linspace(
        -1.0 + half_pixel,
        1.0 - half_pixel,
        padded_side,
        device=images.device,
        dtype=images.dtype,
    )[:side]
    columns = line.unsqueeze(0).expand(side, side)
    grid = torch.stack([columns, columns.transpose(0, 1)], dim=-1).unsqueeze(0)
    grid = grid + offsets * (2.0 / padded_side)
    return F.grid_sample(padded, grid, padding_mode="zeros", align_corners=False)


class PixelEncoder(nn.Module):
    """Shift augmentation, four convolutions and SimNorm: uint8 [R, C, 64, 64] -> [R, L].

    The augmentation is always on, while acting too, as in the official code. A latent size other
    than 16 times the channels gets one linear layer, which the official code does not have.

    Raises:
        ConfigurationError: for images that are not 64 x 64.
    """

    def __init__(self, obs_shape: tuple[int, ...], channels: int, latent: int, group: int) -> None:
        super().__init__()
        if obs_shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise ConfigurationError(
                f"TD-MPC2 takes images of {IMAGE_SIZE}x{IMAGE_SIZE} pixels, not {obs_shape}",
                hint=f"set environment_kwargs.image_size = {IMAGE_SIZE} (in Python: "
                f"resize the frames, and obs_shape=({obs_shape[0]}, {IMAGE_SIZE}, {IMAGE_SIZE}))",
            )
        self.group = group
        inputs = (obs_shape[0], *[channels] * (len(CONVOLUTIONS) - 1))
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, channels, kernel, stride)
            for i, (kernel, stride) in zip(inputs, CONVOLUTIONS, strict=True)
        )
        flat = channels * _LAST_SIDE**2
        self.projection = None if flat == latent else nn.Linear(flat, latent)

    def forward(self, images: Tensor) -> Tensor:
        """[R, C, 64, 64] -> [R, L]."""
        x = images.float()
        x = shift_images(x, shift_offsets(x.shape[0], x.device)).div(255.0).sub(0.5)
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if index < len(self.convolutions) - 1:
                x = F.relu(x)
        x = x.flatten(1)
        if self.projection is not None:
            x = self.projection(x)
        return simnorm(x, self.group)


class PixelDecoder(nn.Module):
    """Latents [R, L] -> images [R, C, 64, 64] in units of `x / 255 - 0.5`; mirrors the encoder."""

    def __init__(self, obs_shape: tuple[int, ...], channels: int, latent: int) -> None:
        super().__init__()
        self.projection = nn.Linear(latent, channels * _LAST_SIDE**2)
        sizes = ((3, 1, 0), (3, 2, 0), (5, 2, 0), (7, 2, 1))
        outputs = (*[channels] * (len(sizes) - 1), obs_shape[0])
        self.convolutions = nn.ModuleList(
            nn.ConvTranspose2d(channels, o, kernel, stride, output_padding=extra)
            for o, (kernel, stride, extra) in zip(outputs, sizes, strict=True)
        )

    def forward(self, latent: Tensor) -> Tensor:
        """[R, L] -> [R, C, 64, 64]."""
        x = self.projection(latent).unflatten(1, (-1, _LAST_SIDE, _LAST_SIDE))
        for convolution in self.convolutions:
            x = convolution(F.relu(x))
        return x
