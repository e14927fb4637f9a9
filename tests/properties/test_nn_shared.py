"""Softmaxes that both families use are torch's, whatever the width of the axis."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from worldflux.nn import log_probs_at, log_softmax, softmax

widths = st.integers(1, 20)
leading = st.lists(st.integers(1, 4), max_size=3)


@given(leading, widths, st.integers(0, 1000))
def test_softmaxes_are_those_of_torch(shape: list[int], width: int, seed: int) -> None:
    x = 10 * torch.randn(*shape, width, generator=torch.Generator().manual_seed(seed))
    assert_close(softmax(x), torch.softmax(x, -1), rtol=1e-6, atol=1e-7)
    assert_close(log_softmax(x), torch.log_softmax(x, -1), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("width", [3, 17])
def test_log_probabilities_at_an_index_and_their_gradient(width: int) -> None:
    logits = torch.randn(4, 2, width, dtype=torch.float64, requires_grad=True)
    index = torch.randint(width, (4, 2, 3))
    index[..., 1] = index[..., 0]  # the same class twice
    expected = torch.log_softmax(logits, -1).gather(-1, index)
    assert_close(log_probs_at(logits, index), expected)
    assert gradcheck(log_probs_at, (logits, index))
