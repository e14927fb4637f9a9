"""The feed-forward parts of DreamerV3: layers, encoder and decoder.

Legend: B batch, T time, D deter, S groups, C classes, E tokens.
Leading axes are free: every network maps `[..., in] -> [..., out]`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldflux.models.dreamerv3.layers import BlockLinear, RMSNorm, trunc_normal_in_
from worldflux.models.dreamerv3.spaces import ObservationKey, module_name, unit_image
from worldflux.nn.scalars import symlog


def linear(in_width: int, out_width: int, outscale: float = 1.0) -> nn.Linear:
    """Affine layer with the official initialisation; the bias starts at 0."""
    layer = nn.Linear(in_width, out_width)
    trunc_normal_in_(layer.weight, fan_in=in_width, outscale=outscale)
    nn.init.zeros_(layer.bias)
    return layer


class Dense(nn.Module):
    """Linear, RMSNorm, SiLU."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.linear = linear(in_width, out_width)
        self.norm = RMSNorm(out_width)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.linear(x)))


def mlp(in_width: int, width: int, num_layers: int) -> nn.Sequential:
    """`num_layers` Dense layers of one width."""
    return nn.Sequential(*(Dense(in_width if i == 0 else width, width) for i in range(num_layers)))


# --------------------------------------------------------------------------- images


class ConvDown(nn.Module):
    """Halve an image: convolution, then 2x2 max-pool ("pool") or stride 2 ("stride"); norm, SiLU.

    Shapes: `[N, in, H, W] -> [N, out, H / 2, W / 2]`, H and W even.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, how: Literal["stride", "pool"]
    ) -> None:
        super().__init__()
        self.pool = how == "pool"
        # Zero padding that keeps the size (or, with stride 2, halves it); the odd pixel, where
        # there is one, goes to the bottom right, which the convolution itself cannot do.
        total = kernel - 1 if self.pool else max(kernel - 2, 0)
        odd = total % 2
        self.padding = (total // 2, total - total // 2) * 2 if odd else None
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=1 if self.pool else 2,
            padding=0 if odd else total // 2,
        )
        self.norm = RMSNorm(out_channels)
        _init_conv(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x if self.padding is None else F.pad(x, self.padding))
        if self.pool:
            x = F.max_pool2d(x, 2)
        return _norm_silu(x, self.norm)


class ConvUp(nn.Module):
    """Double an image: nearest-neighbour upsampling and convolution, or transposed convolution.

    Shapes: `[N, in, H, W] -> [N, out, 2 H, 2 W]`. The output layer has no norm and no activation.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        how: Literal["stride", "pool"],
        *,
        is_output: bool = False,
    ) -> None:
        super().__init__()
        self.upsample = how == "pool"
        self.norm = None if is_output else RMSNorm(out_channels)
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if self.upsample:
            self.padding = ((kernel - 1) // 2, kernel // 2) * 2
            self.conv = nn.Conv2d(in_channels, out_channels, kernel)
        else:
            inset = max(kernel - 2, 0) // 2
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel, 2, padding=inset)
        _init_conv(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = self.conv(F.pad(x, self.padding))
        else:
            # An odd kernel gives one row and column more than asked for.
            x = self.conv(x)[..., : 2 * x.shape[-2], : 2 * x.shape[-1]]
        return x if self.norm is None else _norm_silu(x, self.norm)


def _init_conv(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    kernel_area = conv.kernel_size[0] * conv.kernel_size[1]
    trunc_normal_in_(conv.weight, fan_in=conv.in_channels * kernel_area)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


def _norm_silu(x: Tensor, norm: RMSNorm) -> Tensor:
    """Normalise `[N, C, H, W]` over its channels; free of copies where x is channels-last."""
    return F.silu(norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


# --------------------------------------------------------------------------- encoder, decoder


class Encoder(nn.Module):
    """Observations to tokens: an MLP over all vectors, convolutions over all images.

    Vector values pass through symlog, discrete ones are one-hot; images of one size are stacked on
    channels, each size has convolutions of its own. Tokens are `concat[vector part, image parts]`,
    `[..., token_width]`.
    Images whose sides are no multiple of 2^stages are padded at the bottom right.
    """

    def __init__(
        self,
        keys: Sequence[ObservationKey],
        *,
        width: int,
        num_layers: int,
        depth: int,
        mults: Sequence[int],
        kernels: Sequence[int],
        downsample: Literal["stride", "pool"],
        images_to_mlp: bool,
        use_symlog: bool,
    ) -> None:
        super().__init__()
        self.images = [k for k in keys if k.kind == "image" and not images_to_mlp]
        self.vectors = [k for k in keys if k not in self.images]
        self.use_symlog = use_symlog
        self.token_width = 0
        if self.vectors:
            self.mlp = mlp(sum(key.size for key in self.vectors), width, num_layers)
            self.token_width += width
        self.groups = images_by_size(self.images)
        if self.images:
            towers = []
            for keys_of_size in self.groups:
                channels = [sum(key.shape[0] for key in keys_of_size), *(depth * m for m in mults)]
                downs = (
                    ConvDown(channels[i], channels[i + 1], kernels[i], downsample)
                    for i in range(len(mults))
                )
                towers.append(nn.Sequential(*downs))
                height, wide = _coarse_size(keys_of_size[0], len(mults))
                self.token_width += height * wide * channels[-1]
            self.convs, self.further_convs = towers[0], nn.ModuleList(towers[1:])
            self.multiple = 2 ** len(mults)

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Tokens `[..., E]` of named observations `[..., *shape]`."""
        parts = []
        if self.vectors:
            flat = [_flat_vector(obs[key.name], key, self.use_symlog) for key in self.vectors]
            parts.append(self.mlp(torch.cat(flat, -1)))
        towers = [self.convs, *self.further_convs] if self.images else []
        for keys, convs in zip(self.groups, towers, strict=True):
            x = torch.cat([unit_image(obs[key.name]) for key in keys], -3) - 0.5
            frames = x.flatten(0, -4) if x.ndim > 3 else x.unsqueeze(0)
            frames = _padded(frames, self.multiple).contiguous(memory_format=torch.channels_last)
            # Channel-last order, as the official weights expect it.
            features = convs(frames).permute(0, 2, 3, 1).flatten(1)
            parts.append(features.reshape(*x.shape[:-3], -1))
        return torch.cat(parts, -1)


def images_by_size(images: Sequence[ObservationKey]) -> list[list[ObservationKey]]:
    """The images of each height and width, sizes in the order of their first image."""
    groups: dict[tuple[int, ...], list[ObservationKey]] = {}
    for key in images:
        groups.setdefault(key.shape[1:], []).append(key)
    return list(groups.values())


def _coarse_size(key: ObservationKey, stages: int) -> tuple[int, int]:
    multiple = 2**stages
    return -(-key.shape[1] // multiple), -(-key.shape[2] // multiple)


def _padded(frames: Tensor, multiple: int) -> Tensor:
    bottom, right = -frames.shape[-2] % multiple, -frames.shape[-1] % multiple
    return F.pad(frames, (0, right, 0, bottom)) if bottom or right else frames


def _flat_vector(value: Tensor, key: ObservationKey, use_symlog: bool) -> Tensor:
    leading = value.shape[: value.ndim - len(key.shape)]
    if key.kind == "image":
        value = unit_image(value) - 0.5
    elif key.kind == "discrete":
        known = (value >= 0).unsqueeze(-1)
        value = F.one_hot(value.long().clamp(min=0), key.classes).float() * known
    else:
        # -inf marks a missing value (official replay convention).
        value = value.float()
        value = value.masked_fill(value == -torch.inf, 0.0)
        value = symlog(value) if use_symlog else value
    return value.reshape(*leading, key.size)


class Decoder(nn.Module):
    """Predictions of every observation key from deter `[..., D]` and stoch `[..., S * C]`.

    Vectors come in symlog space where `use_symlog` holds; discrete keys as logits
    `[..., *shape, classes]`; images in [0, 1] after a sigmoid.
    """

    def __init__(
        self,
        keys: Sequence[ObservationKey],
        *,
        deter: int,
        stoch: int,
        width: int,
        num_layers: int,
        depth: int,
        mults: Sequence[int],
        kernels: Sequence[int],
        upsample: Literal["stride", "pool"],
        images_to_mlp: bool,
        blocks: int,
    ) -> None:
        super().__init__()
        self.images = [k for k in keys if k.kind == "image" and not images_to_mlp]
        self.vectors = [k for k in keys if k not in self.images]
        if self.vectors:
            self.mlp = mlp(deter + stoch, width, num_layers)
            heads = {module_name(k.name): linear(width, k.size) for k in self.vectors}
            self.heads = nn.ModuleDict(heads)
        self.groups = images_by_size(self.images)
        if self.images:
            canvases, towers = [], []
            for keys_of_size in self.groups:
                canvas = Canvas(
                    _coarse_size(keys_of_size[0], len(mults)),
                    deter=deter,
                    stoch=stoch,
                    width=2 * width,
                    channels=depth * mults[-1],
                    blocks=blocks,
                )
                out = [sum(key.shape[0] for key in keys_of_size), *(depth * m for m in mults)]
                ups = (
                    ConvUp(out[i + 1], out[i], kernels[i], upsample, is_output=i == 0)
                    for i in reversed(range(len(mults)))
                )
                canvases.append(canvas)
                towers.append(nn.Sequential(*ups))
            self.canvas, self.further_canvases = canvases[0], nn.ModuleList(canvases[1:])
            self.convs, self.further_convs = towers[0], nn.ModuleList(towers[1:])

    def forward(self, deter: Tensor, stoch: Tensor) -> dict[str, Tensor]:
        predictions = {}
        leading = deter.shape[:-1]
        if self.vectors:
            # Stoch first here, deter first in every other head: official order.
            hidden = self.mlp(torch.cat([stoch, deter], -1))
            for key in self.vectors:
                tail = (*key.shape, key.classes) if key.kind == "discrete" else key.shape
                out = self.heads[module_name(key.name)](hidden).reshape(*leading, *tail)
                predictions[key.name] = torch.sigmoid(out) if key.kind == "image" else out
        canvases = [self.canvas, *self.further_canvases] if self.images else []
        towers = [self.convs, *self.further_convs] if self.images else []
        for keys, canvas, convs in zip(self.groups, canvases, towers, strict=True):
            coarse = canvas(deter.reshape(-1, deter.shape[-1]), stoch.flatten(0, -2))
            height, wide = keys[0].shape[1:]
            pixels = torch.sigmoid(convs(coarse)[..., :height, :wide])
            split = pixels.split([key.shape[0] for key in keys], dim=1)
            for key, image in zip(keys, split, strict=True):
                predictions[key.name] = image.reshape(*leading, *key.shape)
        return predictions


class Canvas(nn.Module):
    """The coarse map an image is drawn from: a block-linear view of deter plus an MLP of stoch.

    Shapes: `[N, D], [N, S * C] -> [N, channels, height, width]`, channels-last in memory.
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        deter: int,
        stoch: int,
        width: int,
        channels: int,
        blocks: int,
    ) -> None:
        super().__init__()
        self.size, self.channels, self.blocks = size, channels, blocks
        units = size[0] * size[1] * channels
        self.from_deter = BlockLinear(deter, units, blocks)
        self.hidden = Dense(stoch, width)
        self.from_stoch = linear(width, units)
        self.norm = RMSNorm(channels)

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        height, wide = self.size
        # The block is the outer part of the channel index.
        blocks = self.from_deter(deter).reshape(-1, self.blocks, height, wide, self._inner())
        by_deter = blocks.permute(0, 2, 3, 1, 4).reshape(-1, height, wide, self.channels)
        by_stoch = self.from_stoch(self.hidden(stoch)).reshape(by_deter.shape)
        return F.silu(self.norm(by_deter + by_stoch)).permute(0, 3, 1, 2)

    def _inner(self) -> int:
        return self.channels // self.blocks
