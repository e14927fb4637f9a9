"""Several tasks: embeddings, action masks, discounts and the gradient leak."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from worldflux.core.learning import LearningOverrides, Scratch
from worldflux.core.payloads import WorldModelInput
from worldflux.core.state import State
from worldflux.errors import ConfigurationError, ShapeMismatchError, StateError
from worldflux.models.tdmpc2 import TDMPC2WorldModel

from .builders import random_batch, run_updates, small_config, small_model

TASKS = {"num_tasks": 3, "task_dim": 4, "action_dim": 3, "task_action_dims": (1, 3, 2)}


def observations(size: int, task: list[int]) -> dict[str, torch.Tensor]:
    return {"obs": torch.randn(size, 5), "task": torch.tensor(task)}


def test_the_task_travels_with_the_state() -> None:
    model = small_model(**TASKS)
    obs = observations(3, [0, 1, 2])
    state = model.encode(obs)
    assert torch.equal(state["task"], torch.tensor([0, 1, 2]))
    context = WorldModelInput(observations={"obs": obs["obs"]}, context={"task": obs["task"]})
    assert_close(model.encode(context)["latent"], state["latent"], rtol=0, atol=0)
    reached = model.transition(state, torch.zeros(3, 3))
    assert torch.equal(reached["task"], state["task"])
    assert model.decode(reached).predictions["reward"].shape == (3,)
    same = observations(3, [0, 0, 0])
    same["obs"] = obs["obs"]
    assert not torch.equal(model.encode(same)["latent"][1], state["latent"][1])
    with pytest.raises(ShapeMismatchError, match="task"):
        model.encode(obs["obs"])
    with pytest.raises(ShapeMismatchError, match="from 0 to 2"):
        model.encode(observations(3, [0, 1, 3]))
    with pytest.raises(StateError, match="task"):
        model.decode(State({"latent": state["latent"]}))


def test_dimensions_that_a_task_lacks_stay_zero() -> None:
    model = small_model(**TASKS)
    valid = torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0]], dtype=torch.bool)
    for explore in (True, False):
        first = torch.ones(3, dtype=torch.bool)
        action, carry = model.policy(
            observations(3, [0, 1, 2]), model.initial_carry(3), first, explore=explore
        )
        assert (action[~valid] == 0).all()
        assert (action[valid] != 0).all()
        assert (carry["prev_mean"].transpose(0, 1)[:, ~valid] == 0).all()
    sample = model.networks.policy_sample(
        torch.rand(3, 16), model.networks.task(torch.tensor([0, 1, 2]))
    )
    assert (sample.action[~valid] == 0).all()
    assert (sample.log_std[~valid] == 0).all()


def test_the_scaled_entropy_counts_the_tasks_own_dimensions() -> None:
    model = small_model(**TASKS)
    task = model.networks.task(torch.tensor([0, 1, 2]))
    assert task.num_actions.tolist() == [1, 3, 2]  # type: ignore[union-attr]
    sample = model.networks.policy_sample(torch.rand(3, 16), task)
    assert sample.scaled_entropy.shape == (3,)


def test_each_task_has_its_own_discount() -> None:
    model = small_model(**TASKS, task_episode_lengths=(100, 500, 1000))
    task = model.networks.task(torch.tensor([2, 0, 1]))
    assert_close(task.discount, torch.tensor([0.995, 0.95, 0.99]))


def test_rows_that_are_looked_up_are_scaled_to_norm_one_and_others_left_alone() -> None:
    model = small_model(**TASKS)
    tasks = model.networks.tasks
    assert tasks is not None
    with torch.no_grad():
        tasks.embedding.copy_(torch.tensor([[3.0, 0, 0, 0], [0.1, 0, 0, 0], [0, 4.0, 0, 0]]))
    with torch.no_grad():
        looked_up = model.networks.task(torch.tensor([0, 1])).embedding
    assert looked_up is not None
    assert_close(looked_up.norm(dim=-1), torch.tensor([1.0, 0.1]))
    assert_close(tasks.embedding.norm(dim=-1), torch.tensor([1.0, 0.1, 4.0]))


def policy_gradient(model: TDMPC2WorldModel, scratch: Scratch) -> torch.Tensor:
    """What the policy loss alone leaves on the embedding, by autograd on the real parameter."""
    tasks = model.networks.tasks
    assert tasks is not None
    task = model.networks.task(scratch["task"])
    sample = model.networks.policy_sample(scratch["latents"], task)
    rows = model.networks.rows(scratch["latents"], sample.action, task)
    networks = model.networks
    dropout, heads = networks.draw_dropout(rows[..., 0].numel()), networks.draw_heads()
    value = networks.policy_value(rows.flatten(0, 1), heads, dropout).view(rows.shape[:2])
    loss = -(model.config.entropy_coef * sample.scaled_entropy + value / model.policy_scale)
    loss = (loss.mean(1) * model.step_weights).mean()
    return torch.autograd.grad(loss, tasks.embedding)[0]


def test_the_gradient_leak_is_added_to_the_next_update() -> None:
    model = small_model(**TASKS, leak_task_grad=True)
    tasks = model.networks.tasks
    assert tasks is not None
    batch = random_batch(model.config)
    model_phase, policy_phase = model.phases(LearningOverrides())
    scratch: Scratch = {}
    model_phase.optimizer.zero_grad()
    model_phase.loss(batch, scratch).loss.backward()
    model_phase.optimizer.step()
    torch.manual_seed(7)
    expected = policy_gradient(model, dict(scratch))
    torch.manual_seed(7)
    policy_phase.loss(batch, scratch).loss.backward()
    model.after_update(scratch)
    assert expected.abs().max() > 0
    # The scale moves by at most tau between the two, and starts at 1.
    assert_close(tasks.leaked_grad, expected, rtol=0.05, atol=1e-7)

    torch.manual_seed(8)
    model_phase.optimizer.zero_grad()
    model_phase.loss(batch, {}).loss.backward()
    assert tasks.embedding.grad is not None
    with_leak = tasks.embedding.grad.clone()
    leaked = tasks.leaked_grad.clone()
    tasks.leaked_grad.zero_()
    torch.manual_seed(8)
    model_phase.optimizer.zero_grad()
    model_phase.loss(batch, {}).loss.backward()
    assert tasks.embedding.grad is not None
    assert_close(with_leak, tasks.embedding.grad + leaked, rtol=1e-4, atol=1e-7)


def test_without_the_leak_nothing_is_left_behind() -> None:
    model = small_model(**TASKS)
    run_updates(model, random_batch(model.config), 2)
    tasks = model.networks.tasks
    assert tasks is not None
    assert not tasks.leaked_grad.any()


def test_updates_of_several_tasks_are_finite_and_move_the_embedding() -> None:
    model = small_model(**TASKS, leak_task_grad=True)
    tasks = model.networks.tasks
    assert tasks is not None
    before = tasks.embedding.detach().clone()
    numbers, _ = run_updates(model, random_batch(model.config), 3)
    assert all(torch.isfinite(torch.tensor(value)) for value in numbers.values())
    assert not torch.equal(tasks.embedding, before)


def test_contradicting_settings() -> None:
    with pytest.raises(ConfigurationError, match="task_action_dims"):
        small_config(num_tasks=2, task_action_dims=(1,))
    with pytest.raises(ConfigurationError, match="episodic"):
        small_config(num_tasks=2, episodic=True)
