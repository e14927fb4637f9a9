"""N perceptrons of one shape as stacked parameters: one batched product a layer.

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


def ensemble_forward(x: Tensor, layers: Sequence[LayerTensors], dropout: float = 0.0) -> Tensor:
    """Apply every head to the same rows.

    Args:
        x: [R, inputs].
        layers: tensors of each layer; all but the last carry LayerNorm and Mish.
        dropout: probability after the first linear layer (before its LayerNorm). One mask is drawn
            in one go over [N, R, M], in row-major order.

    Returns:
        [N, R, outputs].
    """
    h = x.unsqueeze(0).expand(layers[0][0].shape[0], -1, -1)
    for index, (weight, bias, *norm) in enumerate(layers):
        h = torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2))
        if index == 0 and dropout > 0:
            h = F.dropout(h, dropout)
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
    """N perceptrons with a zero output layer: [R, inputs] -> [N, R, outputs].

    Dropout acts after the first linear layer, in training mode only.
    """

    def __init__(
        self, heads: int, inputs: int, hidden: Sequence[int], outputs: int, dropout: float
    ) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        widths = [inputs, *hidden, outputs]
        self.layers = nn.ModuleList(
            EnsembleLayer(heads, widths[k], widths[k + 1], output=k == len(hidden))
            for k in range(len(widths) - 1)
        )

    def tensors(self, *, detach: bool = False, heads: Tensor | None = None) -> list[LayerTensors]:
        """Parameters of each layer, cut from the graph and narrowed to some heads when asked."""
        layers = [layer.tensors() for layer in self.layers]  # type: ignore[operator]
        if detach:
            layers = [tuple(t.detach() for t in layer) for layer in layers]
        if heads is not None:
            layers = [tuple(t.index_select(0, heads) for t in layer) for layer in layers]
        return layers

    def forward(self, x: Tensor) -> Tensor:
        return ensemble_forward(x, self.tensors(), self.dropout if self.training else 0.0)
