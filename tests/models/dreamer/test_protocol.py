"""The protocol for DreamerV3: encode, transition, decode, rollout, and what each refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from worldflux.core.payloads import ActionPayload, ActionSequence, ConditionPayload
from worldflux.core.specs import Capability
from worldflux.core.state import State
from worldflux.errors import ConfigurationError, ShapeMismatchError, StateError

from .builders import IMAGE, SEVERAL, observation, small_model


@pytest.mark.parametrize(
    ("changes", "predicted"),
    [
        ({}, {"obs": (4, 5)}),
        (IMAGE, {"obs": (4, 3, 16, 16)}),
        ({**IMAGE, "cnn_downsample": "pool", "cnn_kernels": (5, 3)}, {"obs": (4, 3, 16, 16)}),
        ({**IMAGE, "obs_shape": (1, 18, 21)}, {"obs": (4, 1, 18, 21)}),
        ({**IMAGE, "cnn_kernels": (5, 3)}, {"obs": (4, 3, 16, 16)}),
        ({**IMAGE, "cnn_kernels": (2, 6)}, {"obs": (4, 3, 16, 16)}),
        ({**IMAGE, "encoder_type": "mlp", "decoder_type": "mlp"}, {"obs": (4, 3, 16, 16)}),
        (
            SEVERAL,
            {
                "camera": (4, 3, 16, 16),
                "depth": (4, 1, 16, 16),
                "joints": (4, 2, 3),
                "mode": (4, 2, 3),
            },
        ),
    ],
    ids=[
        "vector",
        "image",
        "pooled",
        "odd sizes",
        "odd kernels",
        "even kernels",
        "image through mlp",
        "several",
    ],
)
def test_pipeline_shapes(changes: dict[str, Any], predicted: dict[str, tuple[int, ...]]) -> None:
    model = small_model(**changes)
    state = model.encode(observation(model, 4))
    assert state["deter"].shape == (4, 16)
    assert state["stoch"].shape == state["logits"].shape == (4, 3, 4)
    assert_close(state["stoch"].sum(-1), torch.ones(4, 3))
    following = model.transition(state, torch.randn(4, 2))
    assert following["deter"].shape == (4, 16)
    predictions = model.decode(following).predictions
    shapes = {name: tuple(value.shape) for name, value in predictions.items()}
    assert shapes == {**predicted, "reward": (4,), "continue": (4,), "value": (4,)}
    for name, value in predictions.items():
        if predicted.get(name, ())[-2:] in ((16, 16), (18, 21)):
            assert 0 <= value.min() <= value.max() <= 1, name


def test_rollout_fills_every_value_and_repeats_itself_when_deterministic() -> None:
    model = small_model()
    state = model.encode(observation(model, 3), deterministic=True)
    actions = torch.randn(5, 3, 2)
    trajectory = model.rollout(state, actions, deterministic=True)
    assert trajectory.horizon == 5
    assert trajectory.to_tensor("deter").shape == (6, 3, 16)
    assert trajectory.rewards is not None
    assert trajectory.continues is not None
    assert trajectory.values is not None
    assert trajectory.rewards.shape == trajectory.continues.shape == (5, 3)
    assert trajectory.values.shape == (6, 3)
    assert ((trajectory.continues > 0) & (trajectory.continues < 1)).all()
    again = model.rollout(state, ActionSequence(tensor=actions), deterministic=True)
    assert torch.equal(again.to_tensor("stoch"), trajectory.to_tensor("stoch"))
    step = model.transition(state, actions[0], deterministic=True)
    assert_close(model.decode(step).predictions["reward"], trajectory.rewards[0])


def test_sampling_follows_the_seed_and_modes_do_not() -> None:
    model = small_model()
    obs = observation(model, 64)
    torch.manual_seed(1)
    first, other = model.encode(obs)["stoch"], model.encode(obs)["stoch"]
    assert not torch.equal(first, other)
    torch.manual_seed(1)
    assert torch.equal(model.encode(obs)["stoch"], first)
    mode = model.encode(obs, deterministic=True)
    assert torch.equal(mode["stoch"].argmax(-1), mode["logits"].argmax(-1))


def test_rollout_of_nothing_and_of_another_mode() -> None:
    model = small_model()
    state = model.encode(observation(model, 2))
    nothing = model.rollout(state, None)
    assert nothing.horizon == 0
    assert nothing.batch_size == 2
    with pytest.raises(ValueError, match="autoregressive"):
        model.rollout(state, None, mode="parallel")


def test_actions_of_every_form() -> None:
    model = small_model(action_type="discrete", action_dim=3)
    state = model.encode(observation(model, 2), deterministic=True)
    index = torch.tensor([2, 0])
    one_hot = torch.eye(3)[index]
    for action in (one_hot, index, ActionPayload("discrete", tensor=index)):
        assert_close(
            model.transition(state, action, deterministic=True)["deter"],
            model.transition(state, one_hot, deterministic=True)["deter"],
        )
    none = model.transition(state, None, deterministic=True)
    zeros = model.transition(state, torch.zeros(2, 3), deterministic=True)
    assert_close(none["deter"], zeros["deter"])
    with pytest.raises(ShapeMismatchError):
        model.transition(state, torch.zeros(2, 4))
    with pytest.raises(ShapeMismatchError):
        model.transition(state, torch.tensor([3, 0]))


def test_several_discrete_actions_are_given_as_indices_too() -> None:
    parts = {"b": {"kind": "discrete", "dim": 2}, "a": {"kind": "discrete", "dim": 3}}
    spec = {"kind": "discrete", "dim": 5, "parts": parts}
    model = small_model(action_type="discrete", action_dim=5, action_spec=spec)
    state = model.encode(observation(model, 2), deterministic=True)
    indices = torch.tensor([[2, 0], [1, 1]])  # sorted by name: a, then b
    rows = torch.tensor([[0.0, 0, 1, 1, 0], [0, 1, 0, 0, 1]])
    assert torch.equal(model.action_tensor(indices), rows)
    for actions in (indices, rows):
        rolled = model.rollout(state, actions.expand(4, *actions.shape), deterministic=True)
        assert rolled.horizon == 4
        step = model.transition(state, actions, deterministic=True)
        assert_close(step["deter"], model.transition(state, rows, deterministic=True)["deter"])
    for wrong in (torch.tensor([2, 0, 1]), torch.tensor([[2, 2], [0, 0]])):
        with pytest.raises(ShapeMismatchError):
            model.transition(state, wrong)


def test_wrong_inputs_are_told() -> None:
    model = small_model()
    with pytest.raises(ShapeMismatchError, match="5"):
        model.encode(torch.zeros(2, 6))
    with pytest.raises(StateError, match="stoch"):
        model.decode(State({"deter": torch.zeros(2, 16)}))
    with pytest.raises(ConfigurationError, match=r"wf\.sim\.wind"):
        model.decode(
            model.encode(observation(model, 2)),
            ConditionPayload(extras={"wf.sim.wind": torch.zeros(2)}),
        )


def test_capabilities_say_what_is_trained() -> None:
    trained, world_only = small_model(), small_model(actor_critic=False)
    assert trained.supports_reward
    assert trained.supports_continue
    assert not trained.supports_planning
    assert trained.supports(Capability.POLICY)
    assert not world_only.supports(Capability.POLICY)
    assert world_only.supports(Capability.OBS_DECODER)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({**IMAGE, "cnn_depth": 3}, "decoder_blocks"),
        ({**IMAGE, "cnn_kernels": (4, 1)}, "cnn_kernels"),
        ({**IMAGE, "cnn_mults": (0, 1)}, "cnn_mults"),
        ({"observation_modalities": {"a": {"kind": "sound", "shape": [5]}}}, "sound"),
        ({"observation_modalities": {"a": {"kind": "image", "shape": [5]}}}, "C, H, W"),
        ({"observation_modalities": {"a": {"kind": "discrete", "shape": [5]}}}, "classes"),
        ({"observation_modalities": {"a": {"kind": "vector", "shape": []}}}, "shape"),
        ({"action_type": "token"}, "token"),
        (
            {
                "action_spec": {
                    "kind": "continuous",
                    "dim": 2,
                    "parts": {"a": {"kind": "continuous", "dim": 1}},
                }
            },
            "action_dim",
        ),
    ],
)
def test_what_the_family_cannot_do_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        small_model(**changes)


def test_decoded_vectors_are_in_units_of_the_environment() -> None:
    """A model trained in symlog space answers in the space of the observation."""
    plain, squashed = small_model(use_symlog=False), small_model(use_symlog=True)
    squashed.load_state_dict(plain.state_dict())
    state = plain.encode(observation(plain, 2), deterministic=True)
    raw = plain.decode(state).predictions["obs"]
    unit = squashed.decode(state).predictions["obs"]
    assert_close(unit, torch.sign(raw) * torch.expm1(raw.abs()), rtol=1e-5, atol=1e-6)
