"""N perceptrons of one shape as stacked parameters.

Small layers take one batched product for all heads, because there the number of kernels decides.
Large ones go head by head on a CPU: a batch of five on two threads leaves one idle for a sixth of
the time, a head's rows stay in the cache, and LayerNorm has a kernel with its affine map.

Shape legend: N heads, R rows, M width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldflux.nn.activations import mish
from worldflux.nn.layers import init_linear_, layer_norm_heads

# weight [N, o, i], bias [N, o], and for a hidden layer its LayerNorm's weight and bias [N, o].
LayerTensors = tuple[Tensor, ...]

Heads = Tensor | slice
"""Some of the heads: indices, or a slice where they can be had without a copy."""

# Entries of one head's layer from which on heads are worked on one by one. Measured with 5 heads:
# forward and backward of 768 x 512 rows 114 ms stacked and 93 ms head by head; 2 heads of
# 1280 x 32 rows 2.2 ms and 2.6 ms.
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
    """Apply every head to the same rows.

    Args:
        x: [R, inputs].
        layers: tensors of each layer; all but the last carry LayerNorm and Mish.
        first_mask: dropout mask [N, R, M] between the first linear layer and its LayerNorm.

    Returns:
        [N, R, outputs].
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
            h = mish(layer_norm_heads(h, *norm))
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
        """The layer's parameters in the order of `LayerTensors`."""
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
        """Parameters of each layer, cut from the graph and narrowed to some heads when asked."""
        layers: list[LayerTensors] = [layer.tensors() for layer in self.layers]  # type: ignore[operator]
        if detach:
            layers = [tuple(t.detach() for t in layer) for layer in layers]
        if heads is not None:
            layers = [tuple(narrowed(t, heads) for t in layer) for layer in layers]
        return layers

    def forward(self, x: Tensor, first_mask: Tensor | None = None) -> Tensor:
        """Logits of all heads; see `ensemble_forward`."""
        return ensemble_forward(x, self.tensors(), first_mask)
