"""Acting: recurrent, batched, reset by is_first, sampled or mode, every kind of action."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from worldflux.core.learning import LearningOverrides
from worldflux.models.dreamerv3 import DreamerV3WorldModel
from worldflux.models.dreamerv3.rssm import from_codes, to_codes

from .builders import IMAGE, SEVERAL, observation, random_batch, small_model

PARTS = {
    "grip": {"kind": "discrete", "dim": 3},
    "arm": {"kind": "continuous", "dim": 2},
    "base": {"kind": "discrete", "dim": 2},
}
MIXED: dict[str, Any] = {
    "action_dim": 7,
    "action_spec": {"kind": "continuous", "dim": 7, "parts": PARTS},
}


def act(
    model: DreamerV3WorldModel, steps: list[Any], first: Tensor, *, explore: bool = False
) -> list[Tensor]:
    carry, actions = model.initial_carry(first.shape[1]), []
    for obs, is_first in zip(steps, first, strict=True):
        action, carry = model.policy(obs, carry, is_first, explore=explore)
        actions.append(action)
    return actions


@pytest.mark.parametrize(
    "changes",
    [{}, IMAGE, SEVERAL, {"action_type": "discrete", "action_dim": 3}, MIXED],
    ids=["vector", "image", "several observations", "discrete", "several actions"],
)
def test_actions_and_carry_have_their_shapes(changes: dict[str, Any]) -> None:
    model = small_model(**changes)
    carry = model.initial_carry(4)
    first = torch.ones(4, dtype=torch.bool)
    action, after = model.policy(observation(model, 4), carry, first, explore=True)
    assert action.shape == (4, model.config.action_dim)
    assert {k: (v.shape, v.dtype) for k, v in after.items()} == {
        k: (v.shape, v.dtype) for k, v in carry.items()
    }
    assert torch.equal(after["action"], action)


def test_discrete_actions_are_one_hot_rows() -> None:
    model = small_model(action_type="discrete", action_dim=3)
    first = torch.ones(50, dtype=torch.bool)
    for explore in (True, False):
        action, _ = model.policy(
            observation(model, 50), model.initial_carry(50), first, explore=explore
        )
        assert_close(action.sum(-1), torch.ones(50))
        assert set(action.unique().tolist()) == {0.0, 1.0}


def test_several_actions_stand_side_by_side_sorted_by_name() -> None:
    model = small_model(**MIXED)
    assert [(p.name, p.start, p.width) for p in model.parts] == [
        ("arm", 0, 2),
        ("base", 2, 2),
        ("grip", 4, 3),
    ]
    first = torch.ones(9, dtype=torch.bool)
    action, _ = model.policy(observation(model, 9), model.initial_carry(9), first, explore=True)
    assert_close(action[:, 2:4].sum(-1), torch.ones(9))
    assert_close(action[:, 4:].sum(-1), torch.ones(9))
    loss = model.loss(random_batch(model)).loss
    assert torch.isfinite(loss)


def test_is_first_forgets_only_its_own_environment() -> None:
    model = small_model()
    past, now = observation(model, 2), observation(model, 2)
    start = torch.tensor([True, True])
    fresh = act(model, [now], start.unsqueeze(0))[0]
    mixed = act(model, [past, now], torch.stack([start, torch.tensor([False, True])]))[1]
    assert_close(mixed[1], fresh[1])
    assert not torch.allclose(mixed[0], fresh[0])


def test_memory_reaches_back() -> None:
    model = small_model()
    past, other, now = (observation(model, 1) for _ in range(3))
    first = torch.tensor([[True], [False]])
    assert not torch.allclose(act(model, [past, now], first)[1], act(model, [other, now], first)[1])


def test_environments_do_not_see_one_another() -> None:
    model = small_model()
    obs = observation(model, 3)
    first = torch.ones(3, dtype=torch.bool)
    together, _ = model.policy(obs, model.initial_carry(3), first, explore=False)
    alone, _ = model.policy(obs[1:2], model.initial_carry(1), first[:1], explore=False)
    assert_close(together[1:2], alone)


def test_exploration_samples_and_evaluation_repeats() -> None:
    model = small_model()
    obs, first = observation(model, 8), torch.ones(8, dtype=torch.bool)
    carry = model.initial_carry(8)
    same = [model.policy(obs, carry, first, explore=False)[0] for _ in range(2)]
    assert torch.equal(*same)
    drawn = [model.policy(obs, carry, first, explore=True)[0] for _ in range(2)]
    assert not torch.equal(*drawn)
    torch.manual_seed(3)
    once = model.policy(obs, carry, first, explore=True)[0]
    torch.manual_seed(3)
    assert torch.equal(model.policy(obs, carry, first, explore=True)[0], once)


def test_acting_sees_the_same_latents_as_learning() -> None:
    """The posterior of a sequence is the one of its steps, taken one by one."""
    model = small_model()
    model.sampling = False
    batch = random_batch(model, size=2, length=5)
    carry, deters = model.initial_carry(2), []
    for t in range(5):
        carry["action"] = batch.actions[:, t - 1] if t else carry["action"]
        _, carry = model.policy(batch.obs[:, t], carry, batch.firsts[:, t], explore=True)
        deters.append(carry["deter"])
    scratch: dict[str, Tensor] = {}
    model.phases(LearningOverrides())[0].loss(batch, scratch)
    assert_close(torch.stack(deters, 1), scratch["deter"], rtol=1e-5, atol=1e-6)


def test_carry_columns_are_what_the_replay_keeps() -> None:
    documented, official = small_model(), small_model(replay_context=1)
    assert documented.replay_columns() == {}
    columns = official.replay_columns()
    carry = official.initial_carry(3)
    assert columns.keys() == {"deter", "stoch"}
    for name, (shape, dtype) in columns.items():
        assert carry[name].shape == (3, *shape)
        assert carry[name].dtype == dtype


def test_codes_keep_every_latent_and_the_zero_state() -> None:
    stoch = torch.eye(4)[torch.randint(0, 4, (6, 3))]
    stoch[0] = 0.0
    assert torch.equal(from_codes(to_codes(stoch), 4), stoch)
    assert to_codes(stoch)[0].abs().sum() == 0
