"""Normalised linear layers and the multilayer perceptron built from them (TD-MPC2, 3.1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldflux.nn.activations import mish

Activation = Callable[[Tensor], Tensor]

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

    def __init__(self, inputs: int, outputs: int, activation: Activation) -> None:
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
    """Hidden `NormedLinear` layers with Mish, then one output layer.

    Args:
        inputs: size of the last axis of the input.
        hidden: width of each hidden layer.
        outputs: size of the last axis of the output.
        output_activation: given, the output layer is a `NormedLinear` with it; else plain linear.
        zero_output: start with a zero output layer, so that the first outputs are all 0.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        output_activation: Activation | None = None,
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
        """[..., inputs] -> [..., outputs]."""
        result: Tensor = self.output(self.hidden(x))
        return result

    def forward_shared(self, shared: Tensor, own: Tensor) -> Tensor:
        """As `forward` on rows `[shared, own]`, with the shared part's product taken once.

        Args:
            shared: [N, inputs - A], each serving R/N consecutive rows.
            own: [R, A].

        Returns:
            [R, outputs]. Needs a hidden layer.
        """
        first = self.hidden[0]
        assert isinstance(first, NormedLinear)
        weight, split = first.linear.weight, shared.shape[-1]
        base = F.linear(shared, weight[:, :split], first.linear.bias)
        base = base.repeat_interleave(len(own) // len(shared), 0)
        x = first.finish(torch.addmm(base, own, weight[:, split:].T))
        for layer in list(self.hidden)[1:]:
            x = layer(x)
        result: Tensor = self.output(x)
        return result


def layer_norm_heads(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm with one affine map a head: x [N, rows, M], weight and bias [N, M]."""
    normed = F.layer_norm(x, x.shape[-1:])
    return torch.addcmul(bias.unsqueeze(1), normed, weight.unsqueeze(1))
