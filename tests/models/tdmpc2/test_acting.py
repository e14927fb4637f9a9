"""Planning: warm starts and resets of each environment, exploration, momentum, the plain prior."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from worldflux.models.tdmpc2 import TDMPC2WorldModel
from worldflux.models.tdmpc2.networks import Task
from worldflux.models.tdmpc2.planner import (
    Imagination,
    discounted_return,
    imagined_returns,
    plan,
)

from .builders import small_config, small_model


class Drawing(Imagination):
    """Draws candidates; a test says what they return."""

    def __init__(self) -> None:
        pass


def act(
    model: TDMPC2WorldModel, num: int, seed: int = 0, explore: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    obs = torch.randn(num, 5)
    first = torch.ones(num, dtype=torch.bool)
    return model.policy(obs, model.initial_carry(num), first, explore=explore)


def test_actions_are_bounded_and_memory_keeps_its_shape() -> None:
    model = small_model()
    carry = model.initial_carry(4)
    assert {name: tuple(value.shape) for name, value in carry.items()} == {
        "prev_mean": (4, 3, 2),
        "valid": (4,),
    }
    first = torch.tensor([True, False, False, True])
    for _ in range(3):
        actions, carry = model.policy(torch.randn(4, 5), carry, first, explore=True)
        assert actions.shape == (4, 2)
        assert actions.abs().max() <= 1
        assert carry["prev_mean"].shape == (4, 3, 2)
        assert carry["valid"].all()
        assert not actions.requires_grad


def test_without_exploration_only_the_added_noise_is_dropped() -> None:
    model = small_model(min_std=0.5)
    quiet, quiet_carry = act(model, 3, explore=False)
    noisy, noisy_carry = act(model, 3, explore=True)
    assert_close(quiet_carry["prev_mean"], noisy_carry["prev_mean"], rtol=0, atol=0)
    assert not torch.equal(quiet, noisy)


def test_the_previous_plan_is_shifted_by_one_step_and_forgotten_on_reset() -> None:
    seen: list[Tensor] = []

    class Spy(Drawing):
        def policy_actions(self, z: Tensor, task: Task, horizon: int) -> Tensor:
            raise AssertionError("no policy trajectories were asked for")

        def returns(self, z: Tensor, actions: Tensor, task: Task) -> Tensor:
            seen.append(actions.clone())
            return torch.zeros(actions.shape[1])

    config = small_config(num_pi_trajs=0, iterations=1, max_std=1e-9, min_std=1e-9)
    task = Task(None, None, 2.0, 0.99)
    warm_start = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1).expand(3, 2, 2)
    plan(Spy(), config, torch.zeros(2, 16), task, warm_start, explore=False)
    assert_close(seen[0].mean(1)[:, 0], torch.tensor([0.1, 0.2, 0.3]))

    model = small_model(num_pi_trajs=0, iterations=1, max_std=1e-6, min_std=1e-7, momentum=0.0)
    carry = model.initial_carry(2)
    carry["prev_mean"] = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1).repeat(2, 1, 2)
    carry["valid"].fill_(True)
    first = torch.tensor([False, True])
    _, after = model.policy(torch.randn(2, 5), carry, first, explore=False)
    assert_close(after["prev_mean"][0, :, 0], torch.tensor([0.2, 0.3, 0.0]), rtol=0, atol=1e-4)
    assert_close(after["prev_mean"][1, :, 0], torch.zeros(3), rtol=0, atol=1e-4)


def test_environments_do_not_disturb_each_other() -> None:
    """The plan of environment 0 is the same whatever environment 1 sees."""
    model = small_model()
    first = torch.ones(2, dtype=torch.bool)
    obs = torch.randn(2, 5)
    other = obs.clone()
    other[1] = torch.randn(5)
    torch.manual_seed(0)
    a, _ = model.policy(obs, model.initial_carry(2), first, explore=False)
    torch.manual_seed(0)
    b, _ = model.policy(other, model.initial_carry(2), first, explore=False)
    assert_close(a[0], b[0], rtol=1e-5, atol=1e-6)
    assert not torch.equal(a[1], b[1])


def test_chunks_of_environments_change_nothing() -> None:
    model = small_model(num_samples=900, episodic=True)
    networks = Imagination(model.networks, imagined_returns)
    z, actions = torch.rand(20, 16), torch.rand(3, 20 * 900, 2)
    task = model.networks.single_task
    torch.manual_seed(0)
    chunked = networks.returns(z, actions, task)
    torch.manual_seed(0)
    noise, heads = torch.randn(20 * 900, 2), model.networks.draw_heads()
    whole = imagined_returns(model.networks, z, actions, task, noise, heads)
    assert_close(chunked, whole, rtol=1e-5, atol=1e-5)


def test_no_momentum_is_exactly_no_mixing_and_full_momentum_keeps_the_mean() -> None:
    frozen = small_model(momentum=1.0)
    _, carry = act(frozen, 2)
    assert_close(carry["prev_mean"], torch.zeros(2, 3, 2), rtol=0, atol=0)
    _, mixed = act(small_model(momentum=0.3), 2)
    _, plain = act(small_model(momentum=0.0), 2)
    assert not torch.equal(mixed["prev_mean"], plain["prev_mean"])


def test_plain_prior_without_planning() -> None:
    model = small_model(mpc=False)
    actions, _ = act(model, 3, explore=False)
    again, _ = act(model, 3, explore=False)
    assert_close(actions, again, rtol=0, atol=0)
    sampled, _ = act(model, 3, explore=True)
    assert not torch.equal(actions, sampled)


@pytest.mark.parametrize(("action_dim", "iterations"), [(19, 2), (20, 4)])
def test_settings_follow_the_configuration(action_dim: int, iterations: int) -> None:
    asked: list[int] = []

    class Counts(Drawing):
        def policy_actions(self, z: Tensor, task: Task, horizon: int) -> Tensor:
            asked.append(len(z))
            return torch.zeros(horizon, len(z), action_dim)

        def returns(self, z: Tensor, actions: Tensor, task: Task) -> Tensor:
            asked.append(actions.shape[1])
            return torch.zeros(actions.shape[1])

    config = small_config(action_dim=action_dim, num_pi_trajs=50)
    task, start = Task(None, None, float(action_dim), 0.99), torch.zeros(3, 1, action_dim)
    plan(Counts(), config, torch.zeros(1, 16), task, start, explore=False)
    assert asked == [16] + iterations * [16]
    only_policy = small_model(num_pi_trajs=16)
    actions, _ = act(only_policy, 2)
    assert actions.shape == (2, 2)


def test_planning_finds_the_better_action() -> None:
    """With a reward that grows with the action, MPPI goes to its bound."""

    class Greedy(Drawing):
        def policy_actions(self, z: Tensor, task: Task, horizon: int) -> Tensor:
            return torch.zeros(horizon, z.shape[0], 2)

        def returns(self, z: Tensor, actions: Tensor, task: Task) -> Tensor:
            return 10 * (actions[..., 0] - actions[..., 1]).sum(0)

    config = small_config(num_samples=256, num_elites=32, iterations=6, momentum=0.1)
    torch.manual_seed(0)
    action, mean = plan(
        Greedy(),
        config,
        torch.zeros(1, 16),
        Task(None, None, 2.0, 0.99),
        torch.zeros(3, 1, 2),
        explore=False,
    )
    assert action[0, 0] > 0.8
    assert action[0, 1] < -0.8
    assert mean.shape == (3, 1, 2)


def test_an_undefined_return_loses() -> None:
    class Undefined(Drawing):
        def policy_actions(self, z: Tensor, task: Task, horizon: int) -> Tensor:
            return torch.zeros(horizon, z.shape[0], 2)

        def returns(self, z: Tensor, actions: Tensor, task: Task) -> Tensor:
            return torch.where(actions[0, :, 0] > 0, torch.nan, 1.0)

    task = Task(None, None, 2.0, 0.99)
    torch.manual_seed(0)
    config = small_config()
    start = torch.zeros(3, 2, 2)
    action, _ = plan(Undefined(), config, torch.zeros(2, 16), task, start, explore=False)
    assert torch.isfinite(action).all()
    assert (action[:, 0] <= 0).all()


@pytest.mark.parametrize("discount", [0.5, torch.tensor([0.5])])
def test_discounted_return_by_hand(discount: float | Tensor) -> None:
    rewards = torch.tensor([[1.0], [2.0], [4.0]])
    value = torch.tensor([8.0])
    assert_close(discounted_return(rewards, value, discount, None), torch.tensor([4.0]))
    ended = torch.tensor([[False], [True], [False]])
    # The step into the terminal state still earns its reward; nothing after it does.
    assert_close(discounted_return(rewards, value, discount, ended), torch.tensor([2.0]))


@pytest.mark.parametrize("explore", [True, False])
def test_proposals_begin_with_the_prior_and_end_with_the_whole_plan(explore: bool) -> None:
    model, num = small_model(min_std=0.5), 3
    obs, first = torch.randn(num, 5), torch.ones(num, dtype=torch.bool)
    carry = model.initial_carry(num)
    prior, _ = model.policies()["prior"](obs, carry, first, explore=False)
    torch.manual_seed(1)
    action, memory = model.policy(obs, carry, first, explore=explore)
    after = torch.get_rng_state()
    torch.manual_seed(1)
    found = list(model.proposals(obs, carry, first, explore=explore))
    assert [(each.iterations, each.of) for each in found] == [(0, 2), (1, 2), (2, 2)]
    assert_close(found[0].action, prior, rtol=0, atol=0)
    assert_close(found[-1].action, action, rtol=0, atol=0)
    assert_close(found[-1].carry, memory, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), after)
    assert all(each.action.abs().max() <= 1 for each in found)


@torch.no_grad()
def test_a_better_proposal_has_a_better_return() -> None:
    """Under one judge, the best elite of a plan beats the prior."""
    model = small_model(num_samples=256, num_pi_trajs=8)
    obs, first = torch.randn(8, 5), torch.ones(8, dtype=torch.bool)
    prior, *_, whole = model.proposals(obs, model.initial_carry(8), first, explore=False)
    z = model.encode(obs)["latent"]
    imagination = Imagination(model.networks, imagined_returns)

    def judged(first_action: Tensor) -> float:
        torch.manual_seed(0)
        actions = whole.carry["prev_mean"].transpose(0, 1).clone()
        actions[0] = first_action
        return float(imagination.returns(z, actions, Task(None, None, 2.0, 0.99)).mean())

    assert judged(whole.action) > judged(prior.action)
