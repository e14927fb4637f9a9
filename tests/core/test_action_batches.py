"""Actions, memories and states that do not belong together are refused, never broadcast."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from worldflux import (
    ActionPayload,
    ActionSequence,
    ConditionPayload,
    ConfigurationError,
    ModelOutput,
    ShapeMismatchError,
    State,
    StateError,
    WorldModelInput,
    create_world_model,
)

KINDS = {
    "tdmpc2": ("tdmpc2:ci", {"num_samples": 16, "num_elites": 4, "num_pi_trajs": 4, "horizon": 2}),
    "dreamer": ("dreamer:ci", {"actor_critic": True}),
    "dreamer discrete": ("dreamer:ci", {"actor_critic": True, "action_type": "discrete"}),
}


@pytest.fixture(params=KINDS, scope="module")
def model(request: pytest.FixtureRequest) -> Any:
    name, fields = KINDS[request.param]
    return create_world_model(name, obs_shape=(5,), action_dim=2, **fields)


def payload(model: Any, tensor: torch.Tensor) -> ActionPayload:
    return ActionPayload(kind=model.config.action_type, tensor=tensor)


@pytest.mark.parametrize("shape", [(3, 2), (1, 2), (2,), (2, 1, 2), (1, 2, 2)])
def test_an_action_of_other_rows_is_refused(model: Any, shape: tuple[int, ...]) -> None:
    state = model.encode(torch.rand(2, 5))
    action = torch.rand(*shape)
    for given in (action, payload(model, action)):
        with pytest.raises(ShapeMismatchError, match=r"expected \[2, 2\]"):
            model.transition(state, given)
    with pytest.raises(ShapeMismatchError, match=r"expected \[2, 2\]"):
        model.rollout(state, ActionSequence(payloads=[payload(model, action)]))
    obs = {"obs": torch.rand(2, 5)}
    with pytest.raises(ShapeMismatchError, match=r"expected \[2, 2\]"):
        model.encode(WorldModelInput(observations=obs, action=payload(model, action)))


@pytest.mark.parametrize("shape", [(3, 3, 2), (2, 2), (4, 2, 3), (2, 2, 2, 2)])
def test_a_plan_of_other_rows_or_sizes_is_refused(model: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeMismatchError):
        model.rollout(model.encode(torch.rand(2, 5)), torch.rand(*shape))


def test_one_action_for_one_row_and_one_step_payloads(model: Any) -> None:
    one = model.encode(torch.rand(1, 5), deterministic=True)
    action = torch.tensor([1.0, 0.0])
    first = model.transition(one, payload(model, action), deterministic=True)
    again = model.transition(one, action.unsqueeze(0), deterministic=True)
    assert all(torch.equal(first[name], again[name]) for name in first.tensors)
    assert model.rollout(one, payload(model, action)).horizon == 1
    two = model.encode(torch.rand(2, 5))
    assert model.rollout(two, payload(model, torch.eye(2))).horizon == 1
    assert model.transition(two, torch.from_numpy(np.eye(2))).batch_size == 2  # double precision
    if model.config.action_type == "discrete":
        assert model.transition(two, torch.tensor([1, 0])).batch_size == 2
        with pytest.raises(ShapeMismatchError):
            model.transition(two, torch.tensor([1]))


def test_a_step_without_an_action_is_one_with_a_zero_action(model: Any) -> None:
    state = model.encode(torch.rand(3, 5), deterministic=True)
    for nothing in (None, ActionPayload()):
        free = model.transition(state, nothing, deterministic=True)
        still = model.transition(state, torch.zeros(3, 2), deterministic=True)
        assert all(torch.equal(free[name], still[name]) for name in still.tensors)
    assert model.rollout(state, None).horizon == 0


def test_a_policy_takes_memory_and_observations_of_the_same_environments(model: Any) -> None:
    obs, first = torch.rand(3, 5), torch.ones(3, dtype=torch.bool)
    actions, _ = model.policy(obs, model.initial_carry(3), first, explore=True)
    assert actions.shape == (3, 2)
    for carry, is_first in ((model.initial_carry(2), first), (model.initial_carry(3), first[:1])):
        with pytest.raises(ShapeMismatchError, match="3 environments"):
            model.policy(obs, carry, is_first, explore=True)


def test_a_state_whose_rows_disagree_is_not_decoded(model: Any) -> None:
    state = model.transition(model.encode(torch.rand(2, 5)), None)
    name = next(iter(state.tensors))
    with pytest.raises(StateError, match="batch sizes"):
        model.decode(State({**state.tensors, name: state[name][:1], "more": torch.zeros(2)}))


def test_conditions_that_a_model_does_not_read_are_said_and_change_nothing(model: Any) -> None:
    state = model.encode(torch.rand(2, 5), deterministic=True)
    plain = model.transition(state, torch.zeros(2, 2), deterministic=True)
    for name in ("goal", "spatial", "camera_pose", "text_condition"):
        given = ConditionPayload(**{name: torch.zeros(2, 5)})
        with pytest.warns(UserWarning, match=f"does not read the condition '{name}'"):
            moved = model.transition(state, torch.zeros(2, 2), given, deterministic=True)
        assert all(torch.equal(moved[key], plain[key]) for key in plain.tensors)
        with pytest.warns(UserWarning, match=name):
            model.decode(state, given)
    with pytest.raises(ConfigurationError, match=r"wf\.sim\.wind"):
        model.transition(state, None, ConditionPayload(extras={"wf.sim.wind": torch.zeros(2)}))


class Narrow:
    """Parts written to other protocols."""

    def encode(self, observations: Any) -> Any:
        return observations

    def condition(self, state: Any, action: Any, conditions: Any) -> Any:
        return {"action": action}

    def transition(self, state: Any, conditioned: Any, deterministic: bool = False) -> Any:
        return conditioned

    def decode(self, state: Any, conditions: Any = None) -> Any:
        return {"reward": state}


def test_parts_written_to_other_protocols_are_told_at_once() -> None:
    def fresh() -> Any:
        return create_world_model("tdmpc2:ci", obs_shape=(5,), action_dim=2)

    with pytest.raises(ConfigurationError, match=r"encode\(observations.*is called with"):
        fresh().replace_component("observation_encoder", Narrow())
    for slot, expected in (
        ("action_conditioner", "a dict, expected a Tensor"),
        ("dynamics_model", "a Tensor, expected a State"),
        ("decoder_module", f"a dict, expected a {ModelOutput.__name__}"),
    ):
        model = fresh()
        model.replace_component(slot, Narrow())
        with pytest.raises(ConfigurationError, match=f"'{slot}' returned {expected}"):
            model.rollout(model.encode(torch.rand(2, 5)), torch.zeros(1, 2, 2))
