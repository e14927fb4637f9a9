"""Several tasks, with the gradient leak, against a plain restatement of the formulas."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from worldflux.core.batch import Batch
from worldflux.models.tdmpc2 import TDMPC2WorldModel
from worldflux.models.tdmpc2.official import official_state_dict

from .builders import run_updates, small_model
from .plain_restatement import PlainAgent

TASKS = {
    "num_tasks": 3,
    "task_dim": 4,
    "action_dim": 3,
    "task_action_dims": (1, 3, 2),
    "task_episode_lengths": (100, 500, 1000),
    "leak_task_grad": True,
    "dropout": 0.0,
    "momentum": 0.0,
    "iterations": 3,
}


def pair(**changes: object) -> tuple[TDMPC2WorldModel, PlainAgent]:
    model = small_model(**{**TASKS, **changes})
    tasks = model.networks.tasks
    assert tasks is not None
    with torch.no_grad():
        tasks.embedding.mul_(8)  # some norms above 1, some below
    return model, PlainAgent(official_state_dict(model), model.config, tasks.discount)


@pytest.mark.parametrize("heads", [2, 4])
def test_updates(heads: int) -> None:
    model, plain = pair(num_q_networks=heads)
    phases = None
    for seed in range(3):
        torch.manual_seed(seed)
        obs, action = torch.randn(4, 8, 5), torch.rand(3, 8, 3) * 2 - 1
        reward, terminated = torch.randn(3, 8, 1), (torch.rand(3, 8, 1) < 0.2).float()
        task = torch.randint(0, 3, (8,))
        first = torch.zeros(1, 8)
        batch = Batch(
            obs={"obs": obs.transpose(0, 1), "task": task.unsqueeze(1).expand(-1, 4)},
            actions=torch.cat([action, torch.zeros(1, 8, 3)]).transpose(0, 1),
            rewards=torch.cat([first, reward.squeeze(-1)]).transpose(0, 1),
            terminations=torch.cat([first, terminated.squeeze(-1)]).transpose(0, 1).bool(),
            is_first=torch.tensor([True, False, False, False]).expand(8, -1),
        )
        torch.manual_seed(100 + seed)
        norm = plain.update(obs, action, reward, terminated, task)
        torch.manual_seed(100 + seed)
        numbers, phases = run_updates(model, batch, phases=phases)
        assert numbers["grad_norm/model"] == pytest.approx(norm, rel=1e-5)
        assert_close(model.policy_scale, plain.scale.squeeze(), rtol=1e-5, atol=1e-6)
        given = official_state_dict(model)
        for name, tensor in plain.p.items():
            if not name.startswith(("_detach", "log_std")):
                detached = tensor.detach()
                assert_close(given[name], detached, rtol=0, atol=2e-6, msg=lambda m, n=name: n + m)


def test_plans() -> None:
    model, plain = pair()
    for task in range(3):
        carry, previous = model.initial_carry(1), None
        for seed in range(3):
            obs, index = torch.randn(5), torch.tensor([task])
            torch.manual_seed(seed)
            expected, previous = plain.plan(obs, index, previous, explore=seed < 2)
            torch.manual_seed(seed)
            action, carry = model.policy(
                {"obs": obs.unsqueeze(0), "task": index},
                carry,
                torch.tensor([seed == 0]),
                explore=seed < 2,
            )
            assert_close(action[0], expected, rtol=0, atol=2e-6)
            assert_close(carry["prev_mean"][0], previous, rtol=0, atol=2e-6)
