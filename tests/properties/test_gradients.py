"""Numerical gradients in float64 of what both families differentiate through."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torch.testing import assert_close

from worldflux.models.dreamerv3 import DreamerV3Config
from worldflux.models.dreamerv3.layers import BlockLinear
from worldflux.models.dreamerv3.maths import MeanSquared, lambda_returns
from worldflux.models.dreamerv3.rssm import RSSM
from worldflux.models.tdmpc2.maths import sample_policy
from worldflux.nn import clipped_by_weight_norm, symlog

seeds = st.integers(0, 2**31 - 1)


def normal(seed: int, *shape: int) -> torch.Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return drawn.requires_grad_()


def test_lambda_returns() -> None:
    last = torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0], dtype=torch.float64).expand(3, 5)

    def returns(
        reward: torch.Tensor, bootstrap: torch.Tensor, terminal: torch.Tensor
    ) -> torch.Tensor:
        return lambda_returns(last, terminal.sigmoid(), reward, bootstrap, 0.97, 0.95)

    assert gradcheck(returns, (normal(0, 3, 5), normal(1, 3, 5), normal(2, 3, 5)))


@pytest.mark.parametrize("use_symlog", [True, False])
def test_squared_error(use_symlog: bool) -> None:
    target = normal(1, 4, 3).detach() * 10

    def squared_error(output: torch.Tensor) -> torch.Tensor:
        # The class works in float32; the same formula in float64 is what gradcheck can check.
        return (output - (symlog(target) if use_symlog else target)).square()

    output = normal(0, 4, 3)
    assert gradcheck(squared_error, output)
    (exact,) = torch.autograd.grad(squared_error(output).sum(), output)
    (loss,) = MeanSquared(output, use_symlog).loss(target)
    (ours,) = torch.autograd.grad(loss.sum(), output)
    assert_close(ours, exact, rtol=1e-5, atol=1e-5)


def test_entropy_of_the_squashed_gaussian() -> None:
    noise = normal(2, 4, 2).detach()

    def entropies(mean: torch.Tensor, log_std: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        sample = sample_policy(mean, log_std, noise, 2)
        return sample.entropy, sample.scaled_entropy

    assert gradcheck(entropies, (normal(0, 4, 2), normal(1, 4, 2)))


def test_block_linear() -> None:
    layer = BlockLinear(6, 4, blocks=2).double()
    assert gradcheck(layer, normal(0, 3, 6))


def test_the_gates_of_the_recurrence() -> None:
    torch.manual_seed(0)
    config = DreamerV3Config(
        deter_dim=8, stoch_discrete=2, stoch_classes=3, hidden_dim=4, blocks=2, action_dim=2
    )
    rssm = RSSM(config, token_width=5).double()
    assert gradcheck(rssm._gru, (normal(0, 3, 8), normal(1, 3, 8)))


def test_clipping_scales_a_gradient_as_autograd_says_of_its_formula() -> None:
    """AGC is applied to gradients, so what it does to them is compared with its formula's."""
    for seed, size in ((0, 0.1), (1, 100.0)):
        weight, gradient = normal(seed, 5, 3).detach(), size * normal(seed + 9, 5, 3).detach()
        (clipped,) = clipped_by_weight_norm([weight], [gradient], 0.3)
        share = gradient.norm() / (0.3 * weight.norm().clamp(min=1e-3))
        assert_close(clipped, gradient / share.clamp(min=1))


# --------------------------------------------------------------------------- the long definition


def mixed_returns(
    last: list[float], terminal: list[float], reward: list[float], value: list[float],
    discount: float, lambda_: float,
) -> list[float]:  # fmt: skip
    """Lambda returns as the weighted sum of n-step returns, each summed anew: O(T^2)."""
    steps = len(reward)
    returns = []
    for start in range(steps - 1):
        total, weight, discounted, gathered = 0.0, 1.0, 1.0, 0.0
        for t in range(start + 1, steps):
            gathered += discounted * reward[t]
            discounted *= (1 - terminal[t]) * discount
            goes_on = (1 - last[t]) * lambda_ if t < steps - 1 else 0.0
            total += weight * (1 - goes_on) * (gathered + discounted * value[t])
            weight *= goes_on
        returns.append(total)
    return returns


@given(seeds, st.integers(2, 64), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_lambda_returns_are_mixtures_of_n_step_returns(
    seed: int, steps: int, discount: float, lambda_: float
) -> None:
    reward, value, ends = (normal(seed + n, steps).detach() for n in range(3))
    last = (ends > 1.0).double()
    terminal = last * (ends > 1.5).double()
    ours = lambda_returns(last, terminal, reward, value, discount, lambda_)
    lists = (x.tolist() for x in (last, terminal, reward, value))
    expected = torch.tensor(mixed_returns(*lists, discount, lambda_), dtype=torch.float64)
    assert_close(ours, expected, rtol=1e-12, atol=1e-12)


@given(seeds, st.integers(2, 64), st.floats(-100.0, 100.0))
def test_a_shift_of_all_values_shifts_undiscounted_returns(
    seed: int, steps: int, shift: float
) -> None:
    reward, value = normal(seed, steps).detach(), normal(seed + 1, steps).detach()
    never = torch.zeros(steps, dtype=torch.float64)
    before = lambda_returns(never, never, reward, value, 1.0, 0.95)
    after = lambda_returns(never, never, reward, value + shift, 1.0, 0.95)
    assert_close(after, before + shift, rtol=1e-12, atol=1e-11)
