"""Properties of the maths under DreamerV3: inverses, bounds, gradients, plain restatements."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.nn import functional as F
from torch.testing import assert_close

from worldflux.models.dreamerv3 import layers
from worldflux.models.dreamerv3.layers import (
    EPSILON,
    BlockLinear,
    ConvDown,
    ConvUp,
    RMSNorm,
    trunc_normal_in_,
)
from worldflux.models.dreamerv3.maths import (
    BoundedNormal,
    MeanSquared,
    OneHotCategorical,
    ReturnNormalizer,
    SymexpTwohot,
    entropy,
    kl_divergence,
    lambda_returns,
    one_hot,
    pick,
    straight_through,
    symexp_bins,
    two_hot,
    uniform_noise,
    unimix_probs,
)
from worldflux.nn import ClippedAdam, LaProp, clipped_by_weight_norm, warmup_factor

seeds = st.integers(0, 2**31 - 1)
sizes = st.integers(1, 6)
shares = st.floats(0.0, 1.0)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator(seed))


# --------------------------------------------------------------------------- two-hot


@given(st.lists(st.floats(-1e7, 1e7, width=32), min_size=1, max_size=20), st.integers(1, 127))
def test_two_hot_weights_are_a_distribution_whose_mean_is_the_target(
    values: list[float], half: int
) -> None:
    bins = symexp_bins(2 * half + 1)
    target = torch.tensor(values)
    below, above, weight = two_hot(target, bins)
    assert ((weight >= 0) & (weight <= 1)).all()
    assert ((above - below >= 0) & (above - below <= 1)).all()
    mean = (1 - weight.double()) * bins[below] + weight.double() * bins[above]
    inside = target.clamp(bins[0], bins[-1]).double()
    scale = (bins[above] - bins[below]).double().abs() + inside.abs()
    assert ((mean - inside).abs() <= 1e-6 * scale + 1e-6).all()


@given(st.integers(0, 254))
def test_a_target_on_a_bin_is_that_bin(index: int) -> None:
    bins = symexp_bins()
    logits = torch.zeros(1, 255)
    logits[0, index] = 50.0
    prediction = SymexpTwohot(logits, bins)
    (loss,) = prediction.loss(bins[index : index + 1])
    assert loss.item() < 1e-6
    assert_close(prediction.pred(), bins[index : index + 1], rtol=1e-5, atol=1e-4)


@given(seeds, sizes)
def test_twohot_losses_together_are_the_losses_apart(seed: int, rows: int) -> None:
    distribution = SymexpTwohot(normal(seed, rows, 41), symexp_bins(41))
    a, b = normal(seed + 1, rows), 100 * normal(seed + 2, rows)
    together = distribution.loss(a, b)
    apart = (*distribution.loss(a), *distribution.loss(b))
    for ours, theirs in zip(together, apart, strict=True):
        assert torch.equal(ours, theirs)


@given(seeds)
def test_symmetric_predictions_are_zero_and_negated_ones_negate(seed: int) -> None:
    bins = symexp_bins()
    logits = normal(seed, 3, 255)
    mirrored = logits + logits.flip(-1)
    assert (SymexpTwohot(mirrored, bins).pred() == 0).all()
    there, back = (SymexpTwohot(x, bins).pred() for x in (logits, logits.flip(-1)))
    assert_close(there, -back, rtol=1e-5, atol=1e3)


def test_a_target_that_is_no_number_makes_a_loss_that_is_none() -> None:
    bins = symexp_bins()
    targets = torch.tensor([1.0, math.nan, math.inf, -math.inf])
    (loss,) = SymexpTwohot(normal(0, 4, 255), bins).loss(targets)
    assert loss.isnan().tolist() == [False, True, False, False]


def test_bins_of_other_ranges_and_counts() -> None:
    assert_close(symexp_bins(5, -1, 3)[0].item(), 1 - math.e)
    assert symexp_bins(4).shape == (4,)
    even = SymexpTwohot(torch.zeros(2, 4), symexp_bins(4, -1, 1))
    assert_close(even.pred(), torch.zeros(2))


def test_gradients_of_the_losses() -> None:
    bins = symexp_bins(9, -2, 2).double()

    def cross_entropy(logits: torch.Tensor) -> torch.Tensor:
        # The class works in float32; the same formula in float64 is what gradcheck can check.
        below, above, weight = two_hot(torch.tensor([0.3, -2.0]).double(), bins)
        log_probs = logits.log_softmax(-1)
        picked = log_probs.gather(-1, torch.stack([below, above], -1))
        return -(picked * torch.stack([1 - weight, weight], -1)).sum(-1)

    logits = normal(0, 2, 9)
    assert gradcheck(cross_entropy, logits.double().requires_grad_())
    (ours,) = SymexpTwohot(logits, bins.float()).loss(torch.tensor([0.3, -2.0]))
    assert_close(ours.double(), cross_entropy(logits.double()), rtol=1e-5, atol=1e-6)


# --------------------------------------------------------------------------- categoricals


@given(seeds, st.integers(2, 40), shares, st.floats(0.1, 30.0))
def test_unimix_keeps_a_floor_and_sums_to_one(
    seed: int, classes: int, unimix: float, spread: float
) -> None:
    probs = unimix_probs(spread * normal(seed, 5, classes), unimix)
    assert_close(probs.sum(-1), torch.ones(5))
    assert (probs >= unimix / classes - 1e-7).all()


@given(seeds, st.integers(2, 9))
def test_kl_is_never_negative_and_zero_for_the_same(seed: int, classes: int) -> None:
    p = unimix_probs(3 * normal(seed, 4, 3, classes), 0.01).log()
    q = unimix_probs(3 * normal(seed + 1, 4, 3, classes), 0.01).log()
    assert (kl_divergence(p, q) >= -1e-5).all()
    assert_close(kl_divergence(p, p), torch.zeros(4))
    assert (entropy(p) <= math.log(classes) + 1e-5).all()


@given(seeds, st.integers(2, 9))
def test_draws_are_classes_with_a_probability(seed: int, classes: int) -> None:
    probs = torch.zeros(6, classes)
    probs[:, normal(seed, classes).argmax()] = 1.0
    torch.manual_seed(seed)
    noise = uniform_noise(6, device=probs.device)
    assert torch.equal(pick(probs, noise), probs.argmax(-1))
    edge = torch.full((6,), math.nextafter(1.0, 0.0))
    index = pick(unimix_probs(normal(seed, 6, classes), 0.01), edge)
    assert ((index >= 0) & (index < classes)).all()
    assert torch.equal(one_hot(index, classes).argmax(-1), index)


def test_draws_have_the_frequencies_of_their_probabilities() -> None:
    torch.manual_seed(0)
    probs = torch.tensor([0.5, 0.0, 0.2, 0.3]).expand(100_000, 4)
    counts = one_hot(pick(probs, uniform_noise(100_000, device=probs.device)), 4).mean(0)
    assert_close(counts, probs[0], rtol=0, atol=6e-3)


@given(seeds)
def test_straight_through_is_hard_forward_and_soft_backward(seed: int) -> None:
    logits = normal(seed, 3, 4).requires_grad_()
    probs = unimix_probs(logits, 0.01)
    hard = straight_through(pick(probs, None), probs)
    weights = normal(seed + 1, 3, 4)
    (through,) = torch.autograd.grad((hard * weights).sum(), logits, retain_graph=True)
    (soft,) = torch.autograd.grad((probs * weights).sum(), logits)
    assert_close(through, soft)
    assert_close(hard.sum(-1), torch.ones(3))


def test_gradients_of_kl_and_unimix() -> None:
    def kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        p, q = (0.99 * x.softmax(-1) + 0.01 / 3 for x in (a, b))
        return kl_divergence(p.log(), q.log())

    a, b = (normal(seed, 2, 2, 3).double().requires_grad_() for seed in (0, 1))
    assert gradcheck(kl, (a, b))


@given(seeds, sizes)
def test_bounded_normal_agrees_with_torch(seed: int, width: int) -> None:
    ours = BoundedNormal(normal(seed, 4, width), normal(seed + 1, 4, width))
    assert ((ours.std > 0.1) & (ours.std < 1.0)).all()
    assert (ours.mode().abs() <= 1).all()
    theirs = torch.distributions.Normal(ours.mean, ours.std)
    action = normal(seed + 2, 4, width)
    assert_close(ours.log_prob(action), theirs.log_prob(action).sum(-1), rtol=1e-5, atol=1e-5)
    assert_close(ours.entropy(), theirs.entropy().sum(-1), rtol=1e-5, atol=1e-5)


@given(seeds, st.integers(2, 7), st.sampled_from([0.0, 0.01]))
def test_one_hot_categorical_agrees_with_torch(seed: int, width: int, unimix: float) -> None:
    ours = OneHotCategorical(normal(seed, 4, width), unimix)
    theirs = torch.distributions.Categorical(logits=ours.log_probs)
    index = ours.mode().argmax(-1)
    assert_close(ours.log_prob(ours.mode()), theirs.log_prob(index))
    assert_close(ours.entropy(), theirs.entropy(), rtol=1e-5, atol=1e-6)


@given(seeds)
def test_mean_squared_is_least_at_its_own_prediction(seed: int) -> None:
    for use_symlog in (True, False):
        head = MeanSquared(normal(seed, 5), use_symlog)
        (least,) = head.loss(head.pred())
        assert_close(least, torch.zeros(5), rtol=0, atol=1e-10)


# --------------------------------------------------------------------------- returns


@given(seeds, st.integers(2, 8), shares, shares)
def test_lambda_returns_follow_the_recursion(
    seed: int, steps: int, discount: float, lambda_: float
) -> None:
    reward, bootstrap = normal(seed, steps), normal(seed + 1, steps)
    last = (normal(seed + 2, steps) > 0.5).float()
    terminal = last * (normal(seed + 3, steps) > 0).float()
    ours = lambda_returns(last, terminal, reward, bootstrap, discount, lambda_)
    running = bootstrap[-1].item()
    for t in reversed(range(steps - 1)):
        live = (1 - terminal[t + 1].item()) * discount
        cont = (1 - last[t + 1].item()) * lambda_
        mixed = (1 - cont) * bootstrap[t + 1].item() + cont * running
        running = reward[t + 1].item() + live * mixed
        assert_close(ours[t].item(), running, rtol=1e-4, atol=1e-4)


@given(seeds, st.integers(2, 8))
def test_lambda_ends_of_the_scale(seed: int, steps: int) -> None:
    reward, bootstrap, never = normal(seed, steps), normal(seed + 1, steps), torch.zeros(steps)
    one_step = lambda_returns(never, never, reward, bootstrap, 0.9, 0.0)
    assert_close(one_step, reward[1:] + 0.9 * bootstrap[1:])
    whole = lambda_returns(never, never, reward, bootstrap, 1.0, 1.0)
    assert_close(whole[0], reward[1:].sum() + bootstrap[-1], rtol=1e-4, atol=1e-4)


@given(seeds, st.floats(0.01, 100.0))
def test_normaliser_tracks_the_percentiles_and_keeps_its_floor(seed: int, spread: float) -> None:
    normalizer = ReturnNormalizer(rate=0.1, limit=1.0)
    returns = spread * normal(seed, 400)
    before = (normalizer.low_value.item(), normalizer.high_value.item())
    percentiles = normalizer.updated(returns)
    assert (normalizer.low_value.item(), normalizer.high_value.item()) == before
    for _ in range(100):
        normalizer.commit(normalizer.updated(returns))
    low, high = np.percentile(returns.numpy(), [5, 95])
    assert_close(normalizer.low_value.item(), float(low), rtol=1e-3, atol=1e-3)
    assert_close(normalizer.high_value.item(), float(high), rtol=1e-3, atol=1e-3)
    assert normalizer.scale(percentiles) >= 1.0


# --------------------------------------------------------------------------- layers


@given(seeds, st.sampled_from([(1, 4, 6), (2, 4, 6), (4, 8, 4)]), sizes)
def test_block_linear_is_a_block_diagonal_matrix(
    seed: int, layout: tuple[int, int, int], rows: int
) -> None:
    blocks, in_width, out_width = layout
    torch.manual_seed(seed)
    layer = BlockLinear(in_width, out_width, blocks)
    dense = torch.block_diag(*layer.weight)
    x = normal(seed, rows, 2, in_width)
    assert_close(layer(x), x @ dense + layer.bias, rtol=1e-5, atol=1e-6)


@given(seeds, st.floats(0.1, 1e3))
def test_rms_norm_forgets_the_scale(seed: int, factor: float) -> None:
    x = normal(seed, 4, 16)
    norm = RMSNorm(16)
    expected = x * (factor**2 * x.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * factor
    assert_close(norm(factor * x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(4096, 32), (130, 3, 13, 64), (8, 33, 512)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_of_large_tensors_has_the_gradients_of_the_plain_formula(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, direction = normal(1, *shape).to(dtype), normal(2, *shape)
    norm, found = RMSNorm(shape[-1]), []
    with torch.no_grad():
        norm.scale += 0.1 * normal(3, shape[-1])
    for plain in (False, True):
        given = x.double() if plain else x.clone()
        given.requires_grad_()
        scale = norm.scale.detach().double().requires_grad_() if plain else norm.scale
        if plain:
            y = given * (given.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * scale
        else:
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                y = norm(given)
        y.backward(direction.to(y.dtype))
        assert given.grad is not None
        assert scale.grad is not None
        found.append([y.detach(), given.grad, scale.grad])
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2
    for ours, true in zip(*found, strict=True):
        assert (ours.double() - true).norm() <= tolerance * true.norm()


@given(seeds, st.sampled_from([0.01, 1.0, 3.0]))
def test_truncated_weights_have_unit_gain(seed: int, outscale: float) -> None:
    torch.manual_seed(seed)
    weight = trunc_normal_in_(torch.empty(200, 100), fan_in=100, outscale=outscale)
    assert_close(weight.std().item(), 0.1 * outscale, rtol=0.05, atol=0)
    assert weight.abs().max() <= 2 * 1.1369 * 0.1 * outscale
    assert not trunc_normal_in_(weight, fan_in=100, outscale=0.0).any()


# --------------------------------------------------------------------------- optimisers


@given(seeds, st.floats(1e-4, 1e4))
def test_clipped_gradients_are_within_their_share_of_the_weight(seed: int, size: float) -> None:
    weights = [normal(seed, 3, 4), torch.zeros(5)]
    gradients = [size * normal(seed + 1, 3, 4), size * normal(seed + 2, 5)]
    for weight, raw, clipped in zip(
        weights, gradients, clipped_by_weight_norm(weights, gradients, 0.3), strict=True
    ):
        limit = 0.3 * max(1e-3, weight.norm().item())
        assert clipped.norm() <= limit * (1 + 1e-5)
        if raw.norm() < limit:
            assert_close(clipped, raw)
        assert_close(clipped * raw.norm(), raw * clipped.norm(), rtol=1e-4, atol=1e-6)


@given(seeds, st.integers(0, 3))
def test_laprop_is_its_recursion(seed: int, warmup: int) -> None:
    weight = normal(seed, 4).requires_grad_()
    plain = weight.detach().clone().double()
    optimizer = LaProp([weight], lr=0.1, agc=0.0, warmup=warmup, weight_decay=0.01)
    rms = momentum = torch.zeros(4, dtype=torch.float64)
    for n in range(1, 6):
        gradient = normal(seed + n, 4)
        weight.grad = gradient
        optimizer.step()
        rms = 0.999 * rms + 0.001 * gradient.double() ** 2
        momentum = 0.9 * momentum + 0.1 * gradient.double() / (rms / (1 - 0.999**n)).sqrt()
        lr = 0.1 * warmup_factor(n, warmup)
        plain = plain * (1 - 0.01 * lr) - lr * momentum / (1 - 0.9**n)
        assert_close(weight.detach().double(), plain, rtol=1e-4, atol=1e-5)


def test_a_tensor_without_gradient_stays() -> None:
    weights = [torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)]
    optimizer = LaProp(weights, warmup=0, lr=0.1)
    optimizer.step()
    weights[0].grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(weights[1], torch.ones(2))
    assert not torch.equal(weights[0], torch.ones(2))


def test_clipped_adam_clips_each_group_by_its_own_norm_and_keeps_its_rates() -> None:
    a, b = (torch.ones(4, requires_grad=True) for _ in range(2))
    optimizer = ClippedAdam(
        [
            {"params": [a], "lr": 0.1, "eps": 1e-8, "max_norm": 1.0, "warmup": 2},
            {"params": [b], "lr": 0.2, "eps": 1e-8, "max_norm": None},
        ]
    )
    a.grad, b.grad = torch.full((4,), 8.0), torch.full((4,), 8.0)
    optimizer.step()
    assert_close(a.grad.norm().item(), 1.0, rtol=1e-4, atol=0)
    assert_close(b.grad.norm().item(), 16.0)
    assert torch.equal(a, torch.ones(4))  # the first update of a warmup
    assert_close(b.detach(), torch.full((4,), 0.8))
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.2]
    optimizer.step()
    assert_close(a.detach(), torch.full((4,), 0.95))


@pytest.mark.parametrize("kernel", range(1, 8))
def test_an_image_is_doubled_as_by_copies_and_a_convolution(kernel: int) -> None:
    torch.manual_seed(0)
    layer = ConvUp(3, 2, kernel, upsample=True, is_output=True).double()
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    copies = F.interpolate(x, scale_factor=2.0, mode="nearest")
    padded = F.pad(copies, ((kernel - 1) // 2, kernel // 2) * 2)
    expected = F.conv2d(padded, layer.conv.weight, layer.conv.bias)
    assert_close(layer(x), expected)
    leaves = [x, layer.conv.weight, layer.conv.bias]
    ours = torch.autograd.grad(layer(x).sin().sum(), leaves)
    assert_close(ours, torch.autograd.grad(expected.sin().sum(), leaves))


@pytest.mark.parametrize("kernel", [1, 4, 5])
def test_images_are_halved_in_pieces_as_at_once(
    kernel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_CACHED", 5 * 4 * 30 * 32)  # five images; the last piece is less
    torch.manual_seed(0)
    layer = ConvDown(3, 4, kernel, pool=True)
    layer.conv.double()
    x = torch.randn(27, 3, 30, 32, dtype=torch.float64, requires_grad=True)
    padded = F.pad(x, ((kernel - 1) // 2, kernel // 2) * 2)
    pooled = F.max_pool2d(F.conv2d(padded, layer.conv.weight, layer.conv.bias), 2)
    expected = F.silu(layer.norm(pooled.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    assert_close(layer(x), expected, rtol=1e-6, atol=1e-6)
    leaves = [x, layer.conv.weight, layer.conv.bias]
    ours = torch.autograd.grad(layer(x).sin().sum(), leaves)
    assert_close(ours, torch.autograd.grad(expected.sin().sum(), leaves), rtol=1e-5, atol=1e-5)


def test_images_are_halved_in_bfloat16_where_it_is_asked_for() -> None:
    torch.manual_seed(0)
    layer = ConvDown(3, 4, 5, pool=True)
    x = torch.rand(24, 3, 32, 32, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        halved = layer(x)
        pooled = F.max_pool2d(layer.conv(x), 2)
        expected = F.silu(layer.norm(pooled.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
    assert halved.dtype == torch.bfloat16
    assert_close(halved, expected)
    ours = torch.autograd.grad(halved.sum(), [x, layer.conv.weight])
    for found, at_once in zip(
        ours, torch.autograd.grad(expected.sum(), [x, layer.conv.weight]), strict=True
    ):
        assert found.dtype == torch.float32
        assert (found - at_once).norm() < 0.01 * at_once.norm()
