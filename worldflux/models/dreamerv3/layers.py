"""Layers of DreamerV3: block-linear, RMSNorm, truncated-normal initialisation by fan-in, and the
convolutions that halve or double an image."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import custom_bwd, custom_fwd
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPSILON = 1e-4
_EPSILON = torch.tensor(EPSILON, dtype=torch.float32, device="cpu")  # whatever the default is
_LARGE = 1 << 16  # numbers; below it our own backward's few Python steps cost more than they save
_CACHED = 1 << 20  # numbers that a processor's cache holds
# The standard deviation of a unit normal cut at +-2 is 0.8796; dividing by it makes the standard
# deviation of the *drawn* weights 1/sqrt(fan_in).
_CUT_CORRECTION = 1.1368


def trunc_normal_in_(weight: Tensor, fan_in: int, outscale: float = 1.0) -> Tensor:
    """Fill `weight` of any shape from a normal cut at two sigma, std 1/sqrt(fan_in) * outscale.

    A block-linear layer counts its *full* input width as `fan_in`, not the width of one block.
    """
    if outscale == 0.0:
        with torch.no_grad():
            return weight.zero_()
    sigma = _CUT_CORRECTION * math.sqrt(1.0 / fan_in)
    with torch.no_grad():
        torch.nn.init.trunc_normal_(weight, std=sigma, a=-2 * sigma, b=2 * sigma)
        return weight.mul_(outscale)


class BlockLinear(nn.Module):
    """Cut the input into `blocks` equal chunks and multiply each by its own matrix.

    Shapes: `[..., in_width] -> [..., out_width]`; block k of the output depends on block k of the
    input only. The weights `(blocks, in / blocks, out / blocks)` suit one bmm; other layouts are
    far slower on a CPU.
    """

    def __init__(self, in_width: int, out_width: int, blocks: int) -> None:
        super().__init__()
        assert in_width % blocks == 0, (in_width, blocks)
        assert out_width % blocks == 0, (out_width, blocks)
        self.blocks = blocks
        self.weight = nn.Parameter(torch.empty(blocks, in_width // blocks, out_width // blocks))
        self.bias = nn.Parameter(torch.zeros(out_width))
        trunc_normal_in_(self.weight, fan_in=in_width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.by_block(x.reshape(-1, x.shape[-1])).transpose(0, 1)
        return out.reshape(*x.shape[:-1], self.bias.shape[0])

    def by_block(self, x: Tensor) -> Tensor:
        """Of `[N, in_width]` each block's output, `[blocks, N, out_width / blocks]`."""
        chunks = x.unflatten(-1, (self.blocks, -1)).transpose(0, 1)
        return torch.baddbmm(self.bias.view(self.blocks, 1, -1), chunks, self.weight)


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2, last axis) + 1e-4) * scale, with a learned scale that starts at 1.

    Shapes: `[..., width] -> [..., width]`. The statistics are float32 whatever the input's type,
    because the mean of squares overflows or loses its small terms in 16 bits.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        as_float = x.float()
        normed: Tensor
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            normed = F.rms_norm(as_float, (x.shape[-1],), self.scale, EPSILON)
        elif torch.is_inference_mode_enabled():  # acting, where every operation costs
            size = torch.linalg.vector_norm(as_float, dim=-1, keepdim=True)
            inverse = torch.addcmul(_EPSILON, size, size, value=1 / x.shape[-1]).rsqrt_()
            normed = (as_float * inverse).mul_(self.scale)
        elif x.numel() >= _LARGE:
            normed = _FewPasses.apply(as_float, self.scale)
        else:
            normed = F.rms_norm(as_float, (x.shape[-1],), self.scale, EPSILON)
        return normed if x.dtype == torch.float32 else normed.to(x.dtype)


def _inverse_rms(x: Tensor) -> Tensor:
    """1 / sqrt(mean(x^2, last axis) + 1e-4), in few operations: `[..., width] -> [..., 1]`."""
    size = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return size.square_().div_(x.shape[-1]).add_(EPSILON).rsqrt_()


class _FewPasses(torch.autograd.Function):
    """The same on a CPU, where each pass over a large tensor costs: 8 passes, torch's way 15.

    With r = 1 / sqrt(mean(x^2) + eps) and g the gradient of y = x r scale:
    dx = g scale r - x r^3 mean(g scale x), dscale = sum over rows of g x r.
    """

    @staticmethod
    @custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        inverse = _inverse_rms(flat)
        ctx.save_for_backward(flat, inverse, scale)
        return (flat * inverse).mul_(scale).view(x.shape)

    @staticmethod
    @once_differentiable
    @custom_bwd(device_type="cpu")
    def backward(  # type: ignore[override]  # torch types its decorators loosely
        ctx: Any, grad: Tensor
    ) -> tuple[Tensor, Tensor]:
        flat, inverse, scale = ctx.saved_tensors
        rows, width = flat.shape
        g = grad.reshape(rows, width)
        product = g * flat
        # In blocks of rows: one long float32 sum would lose digits.
        blocks = math.gcd(rows, 128)
        by_block = inverse.view(blocks, 1, -1) @ product.view(blocks, -1, width)
        of_scale = by_block.sum(0).view(width)
        along = (product @ scale).unsqueeze(1).mul_(inverse.pow(3)).div_(-width)
        of_x = torch.mul(g, scale, out=product).mul_(inverse).addcmul_(flat, along)
        return of_x.view(grad.shape), of_scale


def linear(in_width: int, out_width: int, outscale: float = 1.0) -> nn.Linear:
    """Affine layer with the official initialisation; the bias starts at 0."""
    layer = nn.Linear(in_width, out_width)
    trunc_normal_in_(layer.weight, fan_in=in_width, outscale=outscale)
    nn.init.zeros_(layer.bias)
    return layer


class Dense(nn.Module):
    """SiLU(RMSNorm(W x + b)): `[..., in_width] -> [..., out_width]`."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.linear = linear(in_width, out_width)
        self.norm = RMSNorm(out_width)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.linear(x)))


def mlp(in_width: int, width: int, num_layers: int) -> nn.Sequential:
    """`num_layers` Dense layers of one width."""
    return nn.Sequential(*(Dense(in_width if i == 0 else width, width) for i in range(num_layers)))


class ConvDown(nn.Module):
    """Halve an image: convolution, then 2x2 max-pool (`pool`) or stride 2; norm, SiLU.

    Shapes: `[N, in, H, W] -> [N, out, H / 2, W / 2]`, H and W even.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        # Zero padding that keeps the size (or, with stride 2, halves it). An odd total puts one
        # pixel more at the bottom right, which the convolution itself cannot do.
        total = kernel - 1 if pool else max(kernel - 2, 0)
        odd = total % 2
        self.padding = (total // 2, total - total // 2) * 2 if odd else None
        inside = 0 if odd else total // 2
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, 1 if pool else 2, inside)
        self.norm = RMSNorm(out_channels)
        _init_conv(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.padding is None else F.pad(x, self.padding)
        if not self.pool:
            x = self.conv(x)
        elif x.device.type == "cpu" and x.numel() >= _LARGE and not torch.compiler.is_compiling():
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            assert self.conv.bias is not None
            conv = (x, self.conv.weight, self.conv.bias)
            x = _ConvolvedPooled.apply(*(part.to(dtype) for part in conv), self.conv.padding[0])
        else:
            x = F.max_pool2d(self.conv(x), 2)
        return _norm_silu(x, self.norm)


class _ConvolvedPooled(torch.autograd.Function):
    """A convolution and its 2x2 max-pool, a few images at a time: on a CPU, where what lies between
    the two is pooled, and its gradient used, before it has left the cache."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
        pooled = [
            torch.ops.aten.max_pool2d_with_indices(F.conv2d(piece, weight, bias, 1, padding), 2)
            for piece in _pieces(x, weight)
        ]
        ctx.save_for_backward(x, weight, *(places for _, places in pooled))
        ctx.padding = padding
        return torch.cat([values for values, _ in pooled])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        x, weight, *places = ctx.saved_tensors
        of_input = ctx.needs_input_grad[0]
        parts = []
        for piece, above, chosen in zip(
            _pieces(x, weight), grad.split(len(places[0])), places, strict=True
        ):
            count, channels, height, width = above.shape
            convolved = torch.empty(  # of which only the shape is read
                (count, channels, 2 * height, 2 * width),
                dtype=x.dtype,
                memory_format=torch.channels_last,
            )
            between = torch.ops.aten.max_pool2d_with_indices_backward(
                above, convolved, [2, 2], [2, 2], [0, 0], [1, 1], False, chosen
            )
            settings = [1, 1], [ctx.padding] * 2, [1, 1], False, [0, 0], 1
            wanted = [of_input, True, True]
            parts.append(
                torch.ops.aten.convolution_backward(
                    between, piece, weight, [channels], *settings, wanted
                )
            )
        inputs, weights, biases = zip(*parts, strict=True)
        of_x = torch.cat(inputs) if of_input else None
        return of_x, torch.stack(weights).sum(0), torch.stack(biases).sum(0), None


def _pieces(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """`x` a few images at a time: so few that what the convolution makes of them fits a cache."""
    return x.split(max(1, _CACHED // (len(weight) * x.shape[-2] * x.shape[-1])))


class ConvUp(nn.Module):
    """Double an image: upsampling and convolution (`upsample`), or transposed convolution.

    Shapes: `[N, in, H, W] -> [N, out, 2 H, 2 W]`. The output layer has no norm and no activation.
    """

    fold: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, upsample: bool, is_output: bool
    ) -> None:
        super().__init__()
        self.upsample = upsample
        self.norm = None if is_output else RMSNorm(out_channels)
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if upsample:
            self.conv = nn.Conv2d(in_channels, out_channels, kernel)
            self.register_buffer("fold", _folding(kernel), persistent=False)
        else:
            inset = max(kernel - 2, 0) // 2
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, kernel, 2, padding=inset)
        _init_conv(self.conv)

    def forward(self, x: Tensor) -> Tensor:
        if self.upsample:
            x = self._upsampled(x)
        else:
            # An odd kernel gives one row and column too many.
            x = self.conv(x)[..., : 2 * x.shape[-2], : 2 * x.shape[-1]]
        return x if self.norm is None else _norm_silu(x, self.norm)

    def _upsampled(self, x: Tensor) -> Tensor:
        """The convolution of the image doubled by copies, on the image itself.

        Most pixels under a kernel are copies of one another. So each of the four pixels that
        replace one has a kernel about half as wide, of sums: for 5 x 5, 36 products, not 100.
        """
        fold, reach = self.fold.to(self.conv.weight), self.fold.shape[-1] // 2
        small = torch.einsum("oiuv,auy,bvx->oabiyx", self.conv.weight, fold, fold).flatten(0, 2)
        assert self.conv.bias is not None
        bias = self.conv.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(x, small, bias, padding=reach), 2)


def _folding(kernel: int) -> Tensor:
    """Which small pixel each offset of a kernel meets after an upsampling by copies.

    Shapes: `[2, kernel, 2 reach + 1]`, one-hot: from either of the two copies of a pixel, offset u
    meets a copy of the pixel that is so far away, at most `reach`.
    """
    offsets = torch.arange(kernel) - (kernel - 1) // 2
    places = (torch.arange(2).unsqueeze(1) + offsets) // 2
    reach = (kernel // 2 + 1) // 2
    return F.one_hot(places + reach, 2 * reach + 1).float()


def _init_conv(conv: nn.Conv2d | nn.ConvTranspose2d) -> None:
    kernel_area = conv.kernel_size[0] * conv.kernel_size[1]
    trunc_normal_in_(conv.weight, fan_in=conv.in_channels * kernel_area)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)


def _norm_silu(x: Tensor, norm: RMSNorm) -> Tensor:
    """Normalise `[N, C, H, W]` over its channels; free of copies where x is channels-last."""
    return F.silu(norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
