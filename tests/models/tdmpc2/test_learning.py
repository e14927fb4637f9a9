"""What an update learns from: episode boundaries, longer sequences, overrides, precision, parts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.testing import assert_close

from worldflux.core.batch import Batch
from worldflux.core.learning import LearningOverrides
from worldflux.models.tdmpc2 import TDMPC2WorldModel
from worldflux.nn import LaProp
from worldflux.training.config import TrainingConfig
from worldflux.training.update import Updater

from .builders import random_batch, run_updates, small_model


def losses_and_gradients(model: TDMPC2WorldModel, batch: Batch) -> list[torch.Tensor]:
    """Loss and gradients of both phases under the same random numbers."""
    torch.manual_seed(0)
    scratch: dict[str, torch.Tensor] = {}
    found = []
    for phase in model.phases(LearningOverrides()):
        loss = phase.loss(batch, scratch).loss
        found.append(loss.detach())
        found += torch.autograd.grad(loss, phase.parameters, allow_unused=True)
    return [tensor for tensor in found if tensor is not None]


def test_nothing_is_learned_from_beyond_an_episode_boundary() -> None:
    model = small_model(use_decoder=True, episodic=True)
    batch = random_batch(model.config)
    is_first = batch.firsts.clone()
    is_first[0, 2] = True
    batch = dataclasses.replace(batch, is_first=is_first)
    assert isinstance(batch.obs, torch.Tensor)
    before = losses_and_gradients(model, batch)
    obs, actions, rewards = batch.obs.clone(), batch.actions.clone(), batch.rewards.clone()
    terminations = batch.terminations.clone()
    obs[0, 2:] += 3
    rewards[0, 2:] -= 5
    actions[0, 1:] = -actions[0, 1:]
    terminations[0, 2:] = True
    changed = dataclasses.replace(
        batch, obs=obs, actions=actions, rewards=rewards, terminations=terminations
    )
    for old, new in zip(before, losses_and_gradients(model, changed), strict=True):
        assert_close(old, new, rtol=1e-5, atol=1e-6)
    without = dataclasses.replace(changed, is_first=random_batch(model.config).firsts)
    assert not torch.equal(before[0], losses_and_gradients(model, without)[0])


def test_a_true_end_cuts_the_target_and_a_time_limit_does_not() -> None:
    model = small_model()
    batch = random_batch(model.config)
    ended = torch.zeros_like(batch.terminations)
    ended[:, -1] = True
    normal = losses_and_gradients(model, batch)[0]
    truncated = losses_and_gradients(model, dataclasses.replace(batch, is_last=ended))[0]
    died = losses_and_gradients(model, dataclasses.replace(batch, terminations=ended))[0]
    assert torch.equal(normal, truncated)
    assert not torch.equal(normal, died)


def test_a_longer_sequence_is_read_to_its_first_horizon_plus_one_rows() -> None:
    model = small_model()
    long = random_batch(model.config, length=9)
    assert isinstance(long.obs, torch.Tensor)
    short = Batch(
        long.obs[:, :4], long.actions[:, :4], long.rewards[:, :4], long.terminations[:, :4]
    )
    short = dataclasses.replace(short, is_first=long.firsts[:, :4])
    torch.manual_seed(0)
    expected = model.loss(short).loss
    torch.manual_seed(0)
    assert torch.equal(model.loss(long).loss, expected)


def test_the_policy_phase_trains_the_policy_only_and_the_model_phase_everything_else() -> None:
    model = small_model()
    model_phase, policy_phase = model.phases(LearningOverrides())
    policy = set(map(id, model.networks.policy.parameters()))
    assert set(map(id, policy_phase.parameters)) == policy
    others = {id(p) for p in model.parameters() if p.requires_grad} - policy
    assert set(map(id, model_phase.parameters)) == others
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    run_updates(model, random_batch(model.config))
    moved = {n for n, tensor in model.state_dict().items() if not torch.equal(tensor, before[n])}
    for part in ("encoder", "dynamics", "reward", "policy", "q.", "q_target"):
        assert any(name.startswith(f"networks.{part}") for name in moved), part


def test_the_users_numbers_win_over_the_recipe() -> None:
    model = small_model()
    own = model.phases(LearningOverrides())
    assert [phase.grad_clip for phase in own] == [20.0, 20.0]
    rates = [group["lr"] for group in own[0].optimizer.param_groups]
    assert rates == pytest.approx([0.3 * 3e-4, 3e-4])
    assert own[1].optimizer.param_groups[0]["eps"] == 1e-5
    overrides = LearningOverrides(learning_rate=1e-2, grad_clip=5.0, weight_decay=0.1)
    given = model.phases(overrides)
    assert [phase.grad_clip for phase in given] == [5.0, 5.0]
    assert [group["lr"] for group in given[0].optimizer.param_groups] == [0.3e-2, 1e-2]
    assert given[1].optimizer.param_groups[0]["weight_decay"] == 0.1
    adamw = model.phases(LearningOverrides(optimizer="adamw"))[0].optimizer
    assert isinstance(adamw, torch.optim.AdamW)
    assert isinstance(model.phases(LearningOverrides(optimizer="laprop"))[0].optimizer, LaProp)


@pytest.mark.parametrize("setting", [{"gradient_accumulation_steps": 4}, {"mixed_precision": True}])
@pytest.mark.parametrize("family", [{}, {"num_tasks": 2, "leak_task_grad": True}])
def test_the_trainers_other_ways_to_update(
    setting: dict[str, object], family: dict[str, object]
) -> None:
    model = small_model(**family)
    config = TrainingConfig(**setting)
    updater = Updater(model, model.phases(LearningOverrides()), config)
    for _ in range(2):
        metrics, scratch = updater.update(random_batch(model.config, size=7), 1.0)
        assert model.after_update(scratch) == {}
    assert metrics["loss/model"] > 0
    assert float(model.policy_scale) >= 1
    assert all(torch.isfinite(tensor).all() for tensor in model.state_dict().values())


def test_a_small_problem_is_learned() -> None:
    """Reward and consistency fall on a fixed batch, and the policy follows the value."""
    model = small_model(learning_rate=1e-3)
    batch = random_batch(model.config, size=16)
    first = model.loss(batch).components
    run_updates(model, batch, 200)
    last = model.loss(batch).components
    assert last["reward"] < 0.7 * first["reward"]
    assert last["consistency"] < first["consistency"]
