"""N perceptrons of one shape as stacked parameters: one batched product a layer.

Shape legend: N heads, R rows, M width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from worldflux.nn.activations import mish
from worldflux.nn.layers import init_linear_, layer_norm_heads

# weight [N, o, i], bias [N, o], and for a hidden layer its LayerNorm's weight and bias [N, o].
LayerTensors = tuple[Tensor, ...]


def dropout_mask(shape: Sequence[int], probability: float, like: Tensor) -> Tensor | None:
    """A scaled keep mask of `shape`, drawn in one go in row-major order; None for no dropout."""
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
    h = x.unsqueeze(0).expand(layers[0][0].shape[0], -1, -1)
    for index, (weight, bias, *norm) in enumerate(layers):
        h = torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2))
        if index == 0 and first_mask is not None:
            h = h * first_mask
        if norm:
            h = mish(layer_norm_heads(h, *norm))
    return h


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

    def tensors(self, *, detach: bool = False, heads: Tensor | None = None) -> list[LayerTensors]:
        """Parameters of each layer, cut from the graph and narrowed to some heads when asked."""
        layers: list[LayerTensors] = [layer.tensors() for layer in self.layers]  # type: ignore[operator]
        if detach:
            layers = [tuple(t.detach() for t in layer) for layer in layers]
        if heads is not None:
            layers = [tuple(t.index_select(0, heads) for t in layer) for layer in layers]
        return layers

    def forward(self, x: Tensor, first_mask: Tensor | None = None) -> Tensor:
        """Logits of all heads; see `ensemble_forward`."""
        return ensemble_forward(x, self.tensors(), first_mask)
