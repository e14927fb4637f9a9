"""What cost others a bug, where no other test pins it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.catch import Catch
from worldflux.envs.vector import VectorEnvironment
from worldflux.models.dreamerv3.config import ActionPart, DreamerV3Config, ObservationKey
from worldflux.models.dreamerv3.layers import RMSNorm
from worldflux.models.dreamerv3.losses import (
    imagination_loss,
    kl_losses,
    reconstruction_loss,
    replay_value_loss,
)
from worldflux.models.dreamerv3.maths import (
    BoundedNormal,
    MeanSquared,
    ReturnNormalizer,
    SymexpTwohot,
    lambda_returns,
    symexp_bins,
)
from worldflux.models.dreamerv3.networks import ActionDistribution
from worldflux.models.dreamerv3.rssm import Latent

from .builders import IMAGE, random_batch, small_model

NUMBERS = {"gamma", "lambda_", "actor_entropy_coef", "slow_critic_scale"}


def losses(**changes: object) -> object:
    generator = torch.Generator().manual_seed(0)
    reward, continues, slow = (torch.rand(3, 5, generator=generator) for _ in range(3))
    raw = torch.randn(3, 4, 2, generator=generator)
    arguments = {
        "actions": torch.randn(3, 4, 2, generator=generator),
        "reward": reward,
        "continues": continues,
        "policy": ActionDistribution(
            [ActionPart("action", "continuous", 2, 0)], [BoundedNormal(raw, raw)]
        ),
        "value": SymexpTwohot(torch.randn(3, 5, 41, generator=generator), symexp_bins(41, -3, 3)),
        "slow_value": slow,
        "normalizer": ReturnNormalizer(),
    }
    numbers = {"gamma": 1.0, **{name: changes.pop(name) for name in NUMBERS & changes.keys()}}
    return imagination_loss(DreamerV3Config(**numbers), **{**arguments, **changes})  # type: ignore[arg-type]


def test_1_the_actor_mixes_no_uniform_by_default_and_can() -> None:
    plain = small_model(action_type="discrete", action_dim=3)
    mixed = small_model(action_type="discrete", action_dim=3, actor_unimix=0.01)
    for model, smallest in ((plain, 0.0), (mixed, 0.01 / 3)):
        model.actor.heads["action"]["logits"].bias.data = torch.tensor([300.0, 0.0, 0.0])
        (distribution,) = model.actor(torch.zeros(1, 28)).distributions
        assert_close(distribution.log_probs.exp().min().item(), smallest, rtol=1e-4, atol=1e-7)


def test_2_the_slow_critic_regularises_and_is_no_target() -> None:
    one, other = losses(), losses(slow_value=torch.full((3, 5), 9.0))
    assert torch.equal(one.returns, other.returns)
    assert torch.equal(one.actor, other.actor)
    assert not torch.allclose(one.critic, other.critic)


def test_4_each_block_holds_its_own_three_gates() -> None:
    model = small_model()
    rssm, x = model.rssm, torch.randn(2, 16)
    deter = torch.randn(2, 16)
    blocks = []
    for k in range(4):
        own = slice(4 * k, 4 * k + 4)
        gates = x[:, own] @ rssm.gates.weight[k] + rssm.gates.bias[12 * k : 12 * k + 12]
        reset, candidate, update = gates.split(4, dim=-1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)
        blocks.append(update * candidate + (1 - update) * deter[:, own])
    assert_close(rssm._gru(x, deter), torch.cat(blocks, -1))


def test_4_the_core_is_the_one_of_the_paper_block_by_block() -> None:
    """The split of the first layer into own and shared inputs changes nothing."""
    rssm = small_model(num_dynamics_layers=2).rssm
    latent = Latent(torch.randn(2, 16), torch.eye(4)[torch.randint(0, 4, (2, 3))])
    action = torch.rand(2, 2)
    inputs = [rssm.deter_in(latent.deter), rssm.stoch_in(latent.stoch.flatten(1))]
    shared = torch.cat([*inputs, rssm.action_in(action)], -1)
    joined = [torch.cat([latent.deter[:, 4 * k : 4 * k + 4], shared], -1) for k in range(4)]
    x = torch.cat(joined, -1)
    x = torch.nn.functional.silu(rssm.dynamics_in_norm(rssm.dynamics_in(x)))
    x = torch.nn.functional.silu(rssm.dynamics_norms[0](rssm.dynamics[0](x)))
    assert_close(rssm.next_deter(latent, action), rssm._gru(x, latent.deter), rtol=1e-5, atol=1e-6)


def test_6_the_floor_of_the_kl_is_for_the_sum_over_groups() -> None:
    """Two groups of 0.6 nats each are above the floor of 1 together."""
    p = torch.tensor([[0.9, 0.1], [0.9, 0.1]])
    q = torch.tensor([[0.4187, 0.5813], [0.4187, 0.5813]])
    one_group = (p * (p / q).log()).sum(-1)
    assert (one_group < 1).all()
    assert one_group.sum() > 1
    dynamics, representation = kl_losses(p.log(), q.log(), free=1.0)
    assert_close(dynamics, one_group.sum())
    assert_close(representation, one_group.sum())
    logits = torch.zeros(2, 2, requires_grad=True)
    near, _ = kl_losses(p.log(), logits.log_softmax(-1), free=1.0)
    near.backward()
    assert near.item() == 1.0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_7_the_continue_target_carries_the_discount_also_within_an_episode() -> None:
    model = small_model(recipe="official")
    batch = random_batch(model, latents=False)
    batch.terminations[:] = False
    for weight, bias in ((0.0, 0.4),):
        model.continuation.out.weight.data.fill_(weight)
        model.continuation.out.bias.data.fill_(bias)
    target, p = 1 - 1 / 333, 1 / (1 + math.exp(-0.4))
    expected = -target * math.log(p) - (1 - target) * math.log(1 - p)
    assert_close(model.loss(batch).components["continue"].item(), expected, rtol=1e-5, atol=0)


def test_7_the_weight_starts_at_the_first_continue() -> None:
    """And with a discount of its own, the first state is not discounted."""
    half = torch.full((3, 5), 0.5)
    zero = {"actor_entropy_coef": 0.0, "reward": torch.zeros(3, 5)}
    full = losses(continues=torch.ones(3, 5), **zero)
    halved = losses(continues=torch.cat([half[:, :1], torch.ones(3, 4)], 1), **zero)
    assert_close(halved.critic, full.critic * 0.5)
    discounted = losses(continues=torch.ones(3, 5), gamma=0.9, lambda_=0.0, **zero)
    undiscounted = losses(continues=torch.ones(3, 5), gamma=1.0, lambda_=0.0, **zero)
    # lambda 0 and no reward: R_i = discount * v_{i+1}; the slow part shows the weight alone.
    weight = 0.9 ** torch.arange(4)
    slow_only = [
        run.critic
        - losses(
            continues=torch.ones(3, 5), gamma=d, lambda_=0.0, slow_critic_scale=0.0, **zero
        ).critic
        for run, d in ((discounted, 0.9), (undiscounted, 1.0))
    ]
    assert_close(slow_only[0], slow_only[1] * weight, rtol=1e-4, atol=1e-5)


def test_10_the_last_action_of_an_episode_is_stored_as_zeros() -> None:
    envs = VectorEnvironment("worldflux/Catch-v0", lambda index: Catch(), 2)
    buffer = ReplayBuffer(200, envs.spec.obs_shape, envs.spec.action_dim, num_envs=2)
    collector = Collector(envs, buffer, seed=0)
    for _ in range(40):
        collector.collect_random()
    envs.close()
    rows = buffer.rows(0, 40)
    last, actions = rows["is_last"], rows["action"]
    assert last.sum() == 10
    assert not actions[last].any()
    assert (actions[~last].sum(-1) == 1).all()


def test_11_a_time_limit_bootstraps_and_a_true_end_does_not() -> None:
    reward, bootstrap = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([7.0, 10.0, 20.0])
    none, middle = torch.zeros(3), torch.tensor([0.0, 1.0, 0.0])
    limit = lambda_returns(middle, none, reward, bootstrap, 0.9, 0.95)
    assert_close(limit[0].item(), 1.0 + 0.9 * 10.0)
    end = lambda_returns(middle, middle, reward, bootstrap, 0.9, 0.95)
    assert_close(end[0].item(), 1.0)


def test_11_no_critic_loss_across_the_end_of_an_episode() -> None:
    value = SymexpTwohot(torch.randn(1, 3, 41), symexp_bins(41, -3, 3))
    loss, _ = replay_value_loss(
        DreamerV3Config(gamma=0.9),
        last=torch.tensor([[0.0, 1.0, 0.0]]),
        terminal=torch.zeros(1, 3),
        reward=torch.ones(1, 3),
        bootstrap=torch.ones(1, 3),
        value=value,
        slow_value=torch.zeros(1, 3),
    )
    assert loss.shape == (1, 2)
    assert loss[0, 0] > 0
    assert loss[0, 1] == 0


@pytest.mark.parametrize("num_bins", [3, 41, 255])
def test_12_a_uniform_prediction_is_exactly_zero(num_bins: int) -> None:
    bins = symexp_bins(num_bins)
    assert torch.equal(bins, -bins.flip(0))
    for rows in (1, 7):
        assert (SymexpTwohot(torch.zeros(rows, num_bins), bins).pred() == 0).all()


def test_13_percentiles_interpolate_linearly() -> None:
    values = torch.randn(37)
    low, high = ReturnNormalizer(rate=1.0).updated(values)
    expected = np.percentile(values.double().numpy(), [5, 95])
    assert_close(torch.stack([low, high]).double(), torch.from_numpy(expected), rtol=1e-5, atol=0)


def test_14_the_norm_of_16_bit_numbers_is_computed_in_32() -> None:
    x = torch.full((1, 4), 300.0, dtype=torch.float16)  # its square overflows
    assert_close(RMSNorm(4)(x), torch.ones(1, 4, dtype=torch.float16))
    tiny = torch.full((1, 4), 1e-2)
    assert_close(RMSNorm(4)(tiny), tiny / math.sqrt(2e-4))


def test_15_image_tokens_are_flattened_channel_last() -> None:
    model = small_model(**IMAGE)
    frames = torch.rand(2, 3, 16, 16)
    maps = model.encoder.convs(frames - 0.5)
    assert maps.shape == (2, 8, 4, 4)
    assert_close(model.encoder({"obs": frames}), maps.permute(0, 2, 3, 1).reshape(2, -1))


def test_images_are_the_same_as_bytes_and_as_floats() -> None:
    model = small_model(**IMAGE)
    pixels = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    assert_close(model.encoder({"obs": pixels}), model.encoder({"obs": pixels.float() / 255}))


def test_reconstruction_sums_over_pixels_without_a_half() -> None:
    key = ObservationKey("obs", "image", (1, 2, 2))
    target = torch.full((1, 1, 2, 2), 255, dtype=torch.uint8)
    loss = reconstruction_loss({"obs": torch.zeros(1, 1, 2, 2)}, {"obs": target}, (key,), True)
    assert loss.item() == 4.0
    (squared,) = MeanSquared(torch.zeros(1), use_symlog=True).loss(torch.tensor([math.e - 1]))
    assert_close(squared, torch.ones(1))


def test_missing_values_are_seen_as_zero() -> None:
    model = small_model()
    seen = torch.randn(1, 5)
    seen[0, 2] = -torch.inf
    assert_close(
        model.encoder({"obs": seen}), model.encoder({"obs": seen.masked_fill(seen.isinf(), 0)})
    )
    modes = {"m": {"kind": "discrete", "shape": [2], "classes": 3}}
    model = small_model(obs_shape=(2,), observation_modalities=modes)
    (key,) = model.keys
    assert model.encoder.mlp[0].linear.weight.shape[1] == key.size == 6
    missing = model.loss(random_batch(model)).components["reconstruction"]
    assert torch.isfinite(missing)
