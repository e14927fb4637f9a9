"""Layers of TD-MPC2 (3.1): normalised linear layers, perceptrons, N of them as stacked parameters,
for pixels random shifts with a convolutional encoder, and the activations Mish and SimNorm.

Shape legend: N heads, R rows (any flattened leading axes), M width, C channels, 64x64 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from worldflux.errors import ConfigurationError
from worldflux.nn import softmax

INIT_STD = 0.02


def init_linear_(weight: Tensor, bias: Tensor, *, zero: bool = False) -> None:
    """Zero biases; weights of any shape normal with std 0.02 (cut at +-2: in effect not cut)."""
    with torch.no_grad():
        if zero:
            weight.zero_()
        else:
            nn.init.trunc_normal_(weight, std=INIT_STD)
        bias.zero_()


class NormedLinear(nn.Module):
    """`activation(LayerNorm(W x + b))`: [..., inputs] -> [..., outputs]."""

    def __init__(self, inputs: int, outputs: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = nn.LayerNorm(outputs)
        self.activation = activation
        init_linear_(self.linear.weight, self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.linear(x))

    def finish(self, product: Tensor) -> Tensor:
        """What follows the matrix product: `activation(LayerNorm(product))`."""
        return self.activation(self.norm(product))


class MLP(nn.Module):
    """`NormedLinear` layers with Mish, then an output layer: [..., inputs] -> [..., outputs].

    With `output_activation` the output layer is a `NormedLinear` too, else plain linear; with
    `zero_output` it starts as zeros, so that the first outputs are all 0.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        output_activation: Callable[[Tensor], Tensor] | None = None,
        zero_output: bool = False,
    ) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        self.hidden = nn.Sequential(*(NormedLinear(i, o, mish) for i, o in pairwise(widths)))
        self.output: nn.Module
        if output_activation is None:
            self.output = nn.Linear(widths[-1], outputs)
            init_linear_(self.output.weight, self.output.bias, zero=zero_output)
        else:
            self.output = NormedLinear(widths[-1], outputs, output_activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.hidden(x))

    def forward_shared(self, shared: Tensor, own: Tensor) -> Tensor:
        """As `forward` on rows `[shared, own]` [R, inputs], the shared part's product taken once.

        Each of `shared` [N, inputs - A] serves R/N consecutive rows of `own` [R, A].
        """
        first = self.hidden[0]
        assert isinstance(first, NormedLinear)
        weight, split = first.linear.weight, shared.shape[-1]
        base = F.linear(shared, weight[:, :split], first.linear.bias)
        base = base.repeat_interleave(len(own) // len(shared), 0)
        x = first.finish(torch.addmm(base, own, weight[:, split:].T))
        for layer in list(self.hidden)[1:]:
            x = layer(x)
        return self.output(x)


# --------------------------------------------------------------------------- ensembles

# weight [N, o, i], bias [N, o], and for a hidden layer its LayerNorm's weight and bias [N, o].
LayerTensors = tuple[Tensor, ...]

Heads = Tensor | slice
"""Some of the heads: indices, or a slice where they can be had without a copy."""

# Small ensembles take one batched product for all heads. From so many entries of a head's layer on,
# a CPU is faster head by head: its rows stay in the cache, and LayerNorm has a fused kernel.
_LARGE = 2**17


def narrowed(tensor: Tensor, heads: Heads) -> Tensor:
    """The entries of some heads of `tensor` [N, ...]; a view for a slice."""
    return tensor[heads] if isinstance(heads, slice) else tensor.index_select(0, heads)


def dropout_mask(shape: Sequence[int], probability: float, like: Tensor) -> Tensor | None:
    """A scaled keep mask `[*shape]`, drawn in one go in row-major order; None for no dropout."""
    if probability == 0:
        return None
    keep = 1 - probability
    return torch.empty(*shape, dtype=like.dtype, device=like.device).bernoulli_(keep).div_(keep)


def ensemble_forward(
    x: Tensor, layers: Sequence[LayerTensors], first_mask: Tensor | None = None
) -> Tensor:
    """Apply every head to the same rows: [R, inputs] -> [N, R, outputs].

    All layers but the last carry LayerNorm and Mish. `first_mask` [N, R, M] is the dropout between
    the first linear layer and its LayerNorm.
    """
    heads, width, _ = layers[0][0].shape
    if x.device.type == "cpu" and x.shape[0] * width >= _LARGE:
        return _head_by_head(x, layers, first_mask)
    h = x.unsqueeze(0).expand(heads, -1, -1)
    for index, (weight, bias, *norm) in enumerate(layers):
        h = torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2))
        if index == 0 and first_mask is not None:
            h = h * first_mask
        if norm:
            scale, shift = (tensor.unsqueeze(1) for tensor in norm)
            h = mish(torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), scale))
    return h


def _head_by_head(x: Tensor, layers: Sequence[LayerTensors], first_mask: Tensor | None) -> Tensor:
    # Unbound, not indexed: the backward pass then stacks the heads' gradients once.
    unbound = [[tensor.unbind() for tensor in layer] for layer in layers]
    outputs = []
    for head in range(len(unbound[0][0])):
        h = x
        for index, layer in enumerate(unbound):
            weight, bias, *norm = [tensors[head] for tensors in layer]
            h = F.linear(h, weight, bias)
            if index == 0 and first_mask is not None:
                h = h.mul_(first_mask[head])
            if norm:
                scale, shift = norm
                h = mish(F.layer_norm(h, h.shape[-1:], scale, shift))
        outputs.append(h)
    return torch.stack(outputs)


class EnsembleLayer(nn.Module):
    """Parameters of one layer of N heads; a hidden layer has a LayerNorm, an output layer none."""

    def __init__(self, heads: int, inputs: int, outputs: int, *, output: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(heads, outputs))
        self.norm_weight = None if output else nn.Parameter(torch.ones(heads, outputs))
        self.norm_bias = None if output else nn.Parameter(torch.zeros(heads, outputs))
        init_linear_(self.weight, self.bias, zero=output)

    def tensors(self) -> LayerTensors:
        if self.norm_weight is None or self.norm_bias is None:
            return self.weight, self.bias
        return self.weight, self.bias, self.norm_weight, self.norm_bias


class EnsembleMLP(nn.Module):
    """N perceptrons with a zero output layer: [R, inputs] -> [N, R, outputs]."""

    def __init__(self, heads: int, inputs: int, hidden: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.heads = heads
        self.hidden_width = hidden[0]
        widths = [inputs, *hidden, outputs]
        self.layers = nn.ModuleList(
            EnsembleLayer(heads, widths[k], widths[k + 1], output=k == len(hidden))
            for k in range(len(widths) - 1)
        )

    def tensors(self, *, detach: bool = False, heads: Heads | None = None) -> list[LayerTensors]:
        """Parameters of each layer, cut from the graph or narrowed to some heads."""
        layers: list[LayerTensors] = [layer.tensors() for layer in self.layers]  # type: ignore[operator]
        if detach:
            layers = [tuple(t.detach() for t in layer) for layer in layers]
        if heads is not None:
            layers = [tuple(narrowed(t, heads) for t in layer) for layer in layers]
        return layers

    def forward(self, x: Tensor, first_mask: Tensor | None = None) -> Tensor:
        return ensemble_forward(x, self.tensors(), first_mask)


# --------------------------------------------------------------------------- pixels

IMAGE_SIZE = 64
SHIFT_PAD = 3
# (kernel, stride) of each convolution; 64 -> 29 -> 13 -> 6 -> 4 pixels a side.
CONVOLUTIONS = ((7, 2), (5, 2), (3, 2), (3, 1))
_LAST_SIDE = 4


def shift_offsets(rows: int, device: torch.device) -> Tensor:
    """Random whole-pixel shifts in x and y, [R, 1, 1, 2] with entries in 0..6, as floats."""
    return torch.randint(0, 2 * SHIFT_PAD + 1, (rows, 1, 1, 2), device=device).float()


def shift_images(images: Tensor, offsets: Tensor) -> Tensor:
    """Shift each float image [R, C, 64, 64] by up to three pixels either way, edges replicated.

    `offsets` [R, 1, 1, 2] are of `shift_offsets`; (3, 3) is the identity. Bilinear sampling lands
    on whole pixels here, up to rounding.
    """
    side = images.shape[-1]
    padded_side = side + 2 * SHIFT_PAD
    padded = F.pad(images, (SHIFT_PAD,) * 4, mode="replicate")
    half_pixel = 1.0 / padded_side
    line = torch.linspace(
        half_pixel - 1.0, 1.0 - half_pixel, padded_side, dtype=images.dtype, device=images.device
    )[:side]
    columns = line.unsqueeze(0).expand(side, side)
    grid = torch.stack([columns, columns.transpose(0, 1)], dim=-1).unsqueeze(0)
    grid = grid + offsets * (2.0 / padded_side)
    return F.grid_sample(padded, grid, padding_mode="zeros", align_corners=False)


class PixelEncoder(nn.Module):
    """Shift augmentation, four convolutions and SimNorm: uint8 [R, C, 64, 64] -> [R, L].

    The augmentation is always on, while acting too, as in the official code. A latent size other
    than 16 times the channels gets one linear layer, which the official code does not have. Other
    image sizes raise a ConfigurationError.
    """

    def __init__(self, obs_shape: tuple[int, ...], channels: int, latent: int, group: int) -> None:
        super().__init__()
        if obs_shape[1:] != (IMAGE_SIZE, IMAGE_SIZE):
            raise ConfigurationError(
                f"the encoder takes images of {IMAGE_SIZE}x{IMAGE_SIZE} pixels, not {obs_shape}",
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
        x = self.projection(latent).unflatten(1, (-1, _LAST_SIDE, _LAST_SIDE))
        for convolution in self.convolutions:
            x = convolution(F.relu(x))
        return x


# --------------------------------------------------------------------------- activations

# In small networks torch's CPU kernel of Mish costs more than the matrix products. Here it takes
# one exponential. Accelerators and compiled code have fused kernels already and use those.

# tanh(softplus(x)) is 1 in float32 and float64 beyond this, and exp(x)^4 still fits float32.
_MISH_SATURATES = 20.0
# Below so many numbers torch's one kernel costs less than starting several of ours.
_FEW_FOR_MISH = 2048


def mish(x: Tensor) -> Tensor:
    """`x tanh(ln(1 + e^x))`, elementwise for any shape (Misra 2019)."""
    if x.device.type == "cpu" and torch.compiler.is_compiling():
        e = torch.exp(x.clamp(max=_MISH_SATURATES))  # as below; the compiler makes it one kernel
        return x - x / (1 + e + 0.5 * e * e)
    if x.device.type != "cpu" or x.numel() < _FEW_FOR_MISH:
        return F.mish(x)
    if torch.is_grad_enabled() and x.requires_grad:
        return _MishOneExp.apply(x)
    e = torch.exp(x)
    # tanh(softplus(x)) = 1 - 1/d with d = 1 + e + e^2/2; e = inf gives 1/d = 0, which is right.
    return torch.addcdiv(x, x, e.addcmul_(e, e, value=0.5).add_(1), value=-1)


class _MishOneExp(torch.autograd.Function):
    """Mish whose derivative comes from the forward pass's exponential."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        e = x.clamp(max=_MISH_SATURATES).exp_()
        r = torch.addcmul(e, e, e, value=0.5).add_(1).reciprocal_()
        y = torch.addcmul(x, x, r, value=-1)
        # y' = 1 - r + x (e + e^2) r^2, with r = 1/d
        er = e.mul_(r)
        slope = (er + r).mul_(er).mul_(x).sub_(r).add_(1)
        ctx.save_for_backward(slope)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, grad: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return grad * slope


def simnorm(x: Tensor, group: int) -> Tensor:
    """Softmax within each `group` (V) of consecutive entries: [..., L] -> [..., L] (Eq. 5)."""
    grouped = x.unflatten(-1, (-1, group))
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        grouped = _whole(grouped)
    return softmax(grouped).flatten(-2)


def _whole(x: Tensor) -> Tensor:
    """Numbers of 16 bits as float32: of a softmax more precise, and on a CPU half the time."""
    return x.float() if x.element_size() < 4 else x
