"""Several observations at once and discrete actions, from the factory to loss and acting."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from worldflux import (
    ActionPayload,
    ActionSpec,
    Batch,
    ConfigurationError,
    ModalitySpec,
    ShapeMismatchError,
    WorldModelInput,
    create_world_model,
)

MODALITIES = {
    "camera": {"kind": "image", "shape": [3, 32, 32], "dtype": "uint8"},
    "joints": {"kind": "vector", "shape": [7]},
    "gear": {"kind": "discrete", "shape": [1], "classes": 5},
}
SMALL = {"cnn_depth": 4, "decoder_blocks": 2, "actor_critic": True, "imagination_horizon": 3}


def build(**changes: Any) -> Any:
    torch.manual_seed(0)
    given = {"observation_modalities": MODALITIES, "action_dim": 4, **SMALL, **changes}
    return create_world_model("dreamer:ci", **given)


def observation(*leading: int) -> dict[str, Tensor]:
    return {
        "camera": torch.randint(0, 256, (*leading, 3, 32, 32), dtype=torch.uint8),
        "joints": torch.randn(*leading, 7),
        "gear": torch.randint(0, 5, (*leading, 1)),
    }


def batch(actions: Tensor) -> Batch:
    size, length = actions.shape[:2]
    torch.manual_seed(1)
    return Batch(
        obs=observation(size, length),
        actions=actions,
        rewards=torch.randn(size, length),
        terminations=torch.zeros(size, length, dtype=torch.bool),
    )


def test_what_the_model_declares() -> None:
    model = build()
    assert model.modalities["camera"] == ModalitySpec("image", (3, 32, 32), "uint8")
    assert model.modalities["gear"].classes == 5
    assert model.action_spec == ActionSpec("continuous", 4)
    assert build(action_type="discrete").action_spec.kind == "discrete"
    bounded = {"kind": "continuous", "dim": 4, "low": 0.0, "high": 2.0}
    assert build(action_spec=bounded).action_spec == ActionSpec("continuous", 4, 0.0, 2.0)


def test_named_observations_through_loss_and_acting() -> None:
    model = build()
    output = model.loss(batch(torch.rand(2, 5, 4) * 2 - 1))
    output.loss.backward()
    reached = {name for name, p in model.encoder.named_parameters() if p.grad is not None}
    assert reached == {name for name, _ in model.encoder.named_parameters()}
    state = model.encode(WorldModelInput(observations=observation(3)))
    predictions = model.decode(state).predictions
    assert predictions["camera"].shape == (3, 3, 32, 32)
    assert predictions["joints"].shape == (3, 7)
    assert predictions["gear"].shape == (3, 1, 5)
    first = torch.ones(3, dtype=torch.bool)
    action, _ = model.policy(observation(3), model.initial_carry(3), first, explore=True)
    assert action.shape == (3, 4)


def test_every_modality_decides() -> None:
    model = build()
    obs = observation(2)
    tokens = model.observation_encoder.encode(model.observations(obs))["tokens"]
    for name, value in obs.items():
        other = {**obs, name: (value + 1) % 5 if name == "gear" else value + 1}
        changed = model.observation_encoder.encode(model.observations(other))["tokens"]
        assert not torch.equal(changed, tokens), name


@pytest.mark.parametrize(
    ("obs", "told"),
    [
        (torch.zeros(2, 7), "takes named observations"),
        ({"joints": torch.zeros(2, 7)}, "'camera' is missing"),
        ({**observation(2), "joints": torch.zeros(2, 6)}, r"'joints' has shape \(2, 6\)"),
    ],
    ids=["one tensor", "missing", "shape"],
)
def test_a_wrong_observation_is_named(obs: Any, told: str) -> None:
    with pytest.raises(ShapeMismatchError, match=told):
        build().encode(obs)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"observation_modalities": {"a": {"kind": "sound", "shape": [3]}}}, "'sound'"),
        ({"observation_modalities": {"a": {"kind": "image", "shape": [3, 3]}}}, "C, H, W"),
        ({"observation_modalities": {"a": {"kind": "vector", "shape": [0]}}}, "at least 1"),
        ({"observation_modalities": {"a": {"kind": "vector", "size": [3]}}}, "'size'"),
        ({"action_spec": {"kind": "continuous", "dim": 4, "low": 1, "high": 1}}, "less than"),
        ({"action_spec": {"kind": "continuous", "dim": 3}}, "dim 4"),
        ({"action_spec": {"kind": "continuous", "dim": 4, "min": 0}}, "'min'"),
    ],
    ids=str,
)
def test_a_spec_that_cannot_be_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        build(**changes)


def test_discrete_actions_as_indices_are_the_one_hot_ones() -> None:
    model = build(action_type="discrete")
    model.sampling = False
    index = torch.randint(0, 4, (2, 5))
    one_hot = torch.nn.functional.one_hot(index, 4).float()
    by_index, by_rows = model.loss(batch(index)), model.loss(batch(one_hot))
    assert torch.equal(by_index.loss, by_rows.loss)
    state = model.encode(observation(2), deterministic=True)
    forms = [
        index[:, 0],
        one_hot[:, 0],
        ActionPayload("discrete", tensor=index[:, 0]),
        ActionPayload("discrete", tensor=one_hot[:, 0]),
    ]
    reached = [model.transition(state, form, deterministic=True)["deter"] for form in forms]
    assert all(torch.equal(deter, reached[0]) for deter in reached)
    rolled = [
        model.rollout(state, form.transpose(0, 1), deterministic=True).rewards
        for form in (index, one_hot)
    ]
    assert torch.equal(rolled[0], rolled[1])
    first = torch.ones(2, dtype=torch.bool)
    action, _ = model.policy(observation(2), model.initial_carry(2), first, explore=True)
    assert set(action.unique().tolist()) <= {0.0, 1.0}
    assert action.sum(-1).tolist() == [1.0, 1.0]
    with pytest.raises(ShapeMismatchError, match="index below 4"):
        model.transition(state, torch.tensor([4, 0]))


def test_tdmpc2_says_what_it_does_not_take() -> None:
    with pytest.raises(ConfigurationError, match="continuous"):
        create_world_model("tdmpc2:ci", action_type="discrete")
    with pytest.raises(ConfigurationError, match="one observation"):
        create_world_model("tdmpc2:ci", observation_modalities=MODALITIES)
