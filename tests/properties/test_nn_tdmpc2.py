"""Properties of the maths under TD-MPC2: inverses, sums, equality with plain restatements."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.autograd import gradcheck
from torch.testing import assert_close

from worldflux.models.tdmpc2.layers import (
    MLP,
    EnsembleMLP,
    NormedLinear,
    dropout_mask,
    ensemble_forward,
    mish,
    simnorm,
)
from worldflux.models.tdmpc2.maths import (
    SymlogBins,
    bounded_log_std,
    lerp_targets_,
    percentile_range,
    running_scale,
    sample_policy,
    two_hot,
    two_hot_cross_entropy,
    two_hot_mean,
)
from worldflux.nn import symexp, symlog

finite = st.floats(-1e4, 1e4, allow_nan=False, width=32)
scalars = st.lists(finite, min_size=1, max_size=20).map(lambda v: torch.tensor(v))
grids = st.builds(
    SymlogBins,
    low=st.floats(-12, -1),
    high=st.floats(1, 12),
    num=st.integers(2, 130),
)
seeds = st.integers(0, 2**31 - 1)


@given(scalars)
def test_symexp_inverts_symlog(x: torch.Tensor) -> None:
    assert_close(symexp(symlog(x.double())), x.double(), rtol=1e-9, atol=1e-9)
    assert torch.equal(symlog(-x), -symlog(x))
    ordered = symlog(x.sort().values)
    assert (ordered.diff() >= 0).all()


@given(st.floats(-8.0, 9.0), st.booleans())
def test_symlog_and_back_keeps_float32_from_tiny_to_huge(exponent: float, negative: bool) -> None:
    x = torch.tensor(10.0**exponent * (-1 if negative else 1))
    assert abs(symexp(symlog(x)) / x - 1) <= 2e-6


@given(scalars, grids)
def test_two_hot_is_a_distribution_whose_mean_is_the_scalar(
    x: torch.Tensor, bins: SymlogBins
) -> None:
    target = two_hot(x, bins)
    assert_close(target.sum(-1), torch.ones(len(x)))
    assert (target >= 0).all()
    assert int((target > 0).sum(-1).max()) <= 2
    inside = symlog(x).clamp(bins.low, bins.high)
    assert_close(target @ bins.values(), inside, rtol=1e-4, atol=1e-4)


def test_two_hot_on_the_highest_bin() -> None:
    bins = SymlogBins(-10.0, 10.0, 101)
    target = two_hot(torch.tensor([1e9, -1e9]), bins)
    assert target[0].argmax() == 100
    assert target[1].argmax() == 0
    assert_close(target.amax(-1), torch.ones(2))


@given(grids, seeds)
def test_cross_entropy_equals_the_dense_formula(bins: SymlogBins, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 4, bins.num, generator=generator) * 3
    x = torch.randn(4, generator=generator) * 10
    dense = -(two_hot(x, bins) * torch.log_softmax(logits, -1)).sum(-1)
    assert_close(two_hot_cross_entropy(logits, x, bins), dense, rtol=1e-5, atol=1e-5)


@given(grids, seeds)
def test_mean_of_sharp_logits_is_a_bin(bins: SymlogBins, seed: int) -> None:
    index = seed % bins.num
    logits = torch.full((bins.num,), -200.0)
    logits[index] = 200.0
    values = bins.values()
    assert_close(two_hot_mean(logits, values), symexp(values[index]), rtol=1e-5, atol=1e-5)


def test_mean_keeps_its_precision_under_autocast() -> None:
    values = SymlogBins(-10.0, 10.0, 101).values()
    logits = torch.randn(50, 101)
    with torch.autocast("cpu", torch.bfloat16):
        mean = two_hot_mean(logits, values)
    assert mean.dtype == torch.float32
    assert_close(mean, two_hot_mean(logits, values), rtol=1e-5, atol=1e-6)


def test_cross_entropy_gradient() -> None:
    bins = SymlogBins(-3.0, 3.0, 7)
    x = torch.tensor([0.5, -4.0, 100.0], dtype=torch.float64)
    logits = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda value: two_hot_cross_entropy(value, x, bins), logits)


@given(scalars)
def test_mish_is_mish_with_and_without_gradient(x: torch.Tensor) -> None:
    expected = F.mish(x.double())
    scale = float(x.abs().max()) + 1
    assert_close(mish(x).double(), expected, rtol=0, atol=3e-7 * scale)
    learnt = x.clone().requires_grad_()
    assert_close(mish(learnt).detach().double(), expected, rtol=0, atol=3e-7 * scale)


def test_mish_gradient() -> None:
    x = torch.linspace(-30, 30, 61, dtype=torch.float64, requires_grad=True)
    assert gradcheck(mish, x)
    single = torch.linspace(-100, 100, 201, requires_grad=True)
    mish(single).sum().backward()
    reference = torch.linspace(-100, 100, 201, dtype=torch.float64, requires_grad=True)
    F.mish(reference).sum().backward()
    assert_close(single.grad.double(), reference.grad, rtol=0, atol=1e-5)


@given(st.integers(1, 4), st.sampled_from([1, 2, 4, 8]), st.floats(0.01, 200.0), seeds)
def test_simnorm_is_a_softmax_of_each_group(
    groups: int, size: int, scale: float, seed: int
) -> None:
    x = torch.randn(3, groups * size, generator=torch.Generator().manual_seed(seed)) * scale
    expected = torch.softmax(x.view(3, groups, size), -1).flatten(1)
    assert_close(simnorm(x, size), expected, rtol=1e-5, atol=1e-6)
    assert_close(simnorm(x, size).view(3, groups, size).sum(-1), torch.ones(3, groups))


def test_simnorm_gradient() -> None:
    x = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda value: simnorm(value, 4), x)


def test_normed_linear_and_mlp_are_their_formula() -> None:
    torch.manual_seed(0)
    layer = NormedLinear(3, 4, mish)
    x = torch.randn(2, 5, 3)
    inner = x @ layer.linear.weight.T + layer.linear.bias
    centred = inner - inner.mean(-1, keepdim=True)
    normed = centred / torch.sqrt(inner.var(-1, unbiased=False, keepdim=True) + 1e-5)
    assert_close(layer(x), F.mish(normed * layer.norm.weight + layer.norm.bias))
    zero = MLP(3, [4, 4], 6, zero_output=True)
    assert not zero(x).any()
    assert MLP(3, [], 6)(x).shape == (2, 5, 6)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), seeds)
def test_a_shared_start_is_the_same_perceptron(
    shared: int, each: int, depth: int, seed: int
) -> None:
    torch.manual_seed(seed)
    mlp = MLP(7, [6] * depth, 3)
    start, own = torch.randn(shared, 5), torch.randn(shared * each, 2)
    rows = torch.cat([start.repeat_interleave(each, 0), own], -1)
    assert_close(mlp.forward_shared(start, own), mlp(rows), rtol=1e-4, atol=1e-6)


@given(st.integers(1, 4), st.integers(1, 6), st.integers(1, 3), seeds)
def test_an_ensemble_is_its_heads(heads: int, rows: int, depth: int, seed: int) -> None:
    torch.manual_seed(seed)
    ensemble = EnsembleMLP(heads, 5, [6] * depth, 3)
    with torch.no_grad():
        for parameter in ensemble.parameters():
            parameter.normal_()
    x = torch.randn(rows, 5)
    together = ensemble(x)
    assert together.shape == (heads, rows, 3)
    for head in range(heads):
        h = x
        for weight, bias, *norm in ensemble.tensors():
            h = F.linear(h, weight[head], bias[head])
            if norm:
                h = F.mish(F.layer_norm(h, h.shape[-1:], norm[0][head], norm[1][head]))
        assert_close(together[head], h, rtol=1e-4, atol=1e-5)


def test_some_heads_and_a_detached_view() -> None:
    ensemble = EnsembleMLP(5, 4, [6], 3)
    nn.init.normal_(ensemble.layers[1].weight)
    x = torch.randn(7, 4, requires_grad=True)
    chosen = torch.tensor([3, 1])
    some = ensemble_forward(x, ensemble.tensors(heads=chosen, detach=True))
    assert_close(some, ensemble(x)[chosen])
    some.sum().backward()
    assert x.grad is not None
    assert all(parameter.grad is None for parameter in ensemble.parameters())


def test_dropout_mask_keeps_the_mean_and_is_drawn_in_one_go() -> None:
    like = torch.empty(1)
    torch.manual_seed(0)
    mask = dropout_mask((5, 40, 500), 0.25, like)
    assert mask is not None
    assert mask.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert float(mask.mean()) == pytest.approx(1.0, abs=0.01)
    torch.manual_seed(0)
    flat = torch.nn.functional.dropout(torch.ones(5 * 40 * 500), 0.25)
    assert_close(mask.flatten(), flat, rtol=0, atol=0)
    assert dropout_mask((2, 3), 0.0, like) is None


@given(st.lists(finite, min_size=1, max_size=50))
def test_percentile_range_is_numpys(values: list[float]) -> None:
    array = np.asarray(values, dtype=np.float32).astype(np.float64)
    low, high = np.percentile(array, [5, 95])
    ours = percentile_range(torch.from_numpy(array))
    assert float(ours) == pytest.approx(high - low, rel=1e-6, abs=1e-6)


@given(st.lists(finite, min_size=1, max_size=30), st.floats(0.001, 1.0))
def test_running_scale_moves_towards_the_range_and_stays_at_least_one(
    values: list[float], tau: float
) -> None:
    x, scale = torch.tensor(values), torch.tensor(1.0)
    goal = max(float(percentile_range(x)), 1.0)
    moved = running_scale(scale, x, tau)
    assert moved.shape == scale.shape
    assert float(moved) >= 1.0
    assert float(moved) == pytest.approx(1 + tau * (goal - 1), rel=1e-4)


def test_policy_sample_is_a_tanh_transformed_normal() -> None:
    torch.manual_seed(0)
    mean, log_std = torch.randn(6, 3), torch.randn(6, 3) * 0.5 - 1
    eps = torch.randn(6, 3)
    sample = sample_policy(mean, log_std, eps, 3)
    base = torch.distributions.Normal(mean, log_std.exp())
    u = mean + eps * log_std.exp()
    assert_close(sample.action, torch.tanh(u))
    correction = torch.log(1 - torch.tanh(u) ** 2 + 1e-6)
    log_prob = (base.log_prob(u) - correction).sum(-1)
    assert_close(sample.entropy, -log_prob, rtol=1e-4, atol=1e-4)
    # The tanh correction cancels.
    assert_close(sample.scaled_entropy, -3 * base.log_prob(u).sum(-1), rtol=1e-3, atol=1e-3)


@given(st.floats(-30, 30), st.floats(-12, -1), st.floats(0, 5))
def test_log_std_is_bounded(raw: float, low: float, high: float) -> None:
    value = float(bounded_log_std(torch.tensor(raw, dtype=torch.float64), low, high))
    assert low - 1e-9 <= value <= high + 1e-9
    middle = float(bounded_log_std(torch.tensor(0.0), low, high))
    assert math.isclose(middle, (low + high) / 2, abs_tol=1e-5)


def test_targets_move_by_tau_in_place() -> None:
    targets = [torch.zeros(2), torch.ones(3, 3)]
    online = [torch.ones(2), torch.full((3, 3), 3.0)]
    lerp_targets_(targets, online, 0.25)
    assert_close(targets[0], torch.full((2,), 0.25))
    assert_close(targets[1], torch.full((3, 3), 1.5))
