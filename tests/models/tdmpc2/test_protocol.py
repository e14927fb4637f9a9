"""The protocol for TD-MPC2: encode, transition, decode, rollout, component slots with an effect."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from worldflux.core.outputs import ModelOutput, Trajectory
from worldflux.core.payloads import ActionPayload, ConditionPayload, WorldModelInput
from worldflux.core.rollout import AutoregressiveRollout
from worldflux.core.specs import Capability
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel
from worldflux.errors import ConfigurationError, ShapeMismatchError
from worldflux.models.tdmpc2 import TDMPC2WorldModel

from .builders import observation, random_batch, run_updates, small_config, small_model


def test_pipeline_shapes_and_alignment() -> None:
    model = small_model()
    state = model.encode(torch.randn(4, 5))
    assert state["latent"].shape == (4, 16)
    root = model.decode(state).predictions
    assert root.keys() == {"value"}
    action = torch.rand(4, 2) * 2 - 1
    reached = model.transition(state, action)
    expected = model.networks.mean(
        model.networks.reward(torch.cat([state["latent"], action], dim=-1))
    )
    assert_close(model.decode(reached).predictions["reward"], expected, rtol=0, atol=0)
    assert model.decode(reached).predictions["value"].shape == (4,)


def test_rollout_gives_the_rewards_of_the_given_actions() -> None:
    model = small_model(episodic=True)
    state = model.encode(torch.randn(4, 5))
    actions = torch.rand(3, 4, 2) * 2 - 1
    trajectory = model.rollout(state, actions)
    assert trajectory.horizon == 3
    assert trajectory.to_tensor("latent").shape == (4, 4, 16)
    assert trajectory.rewards is not None
    assert trajectory.values is not None
    assert trajectory.continues is not None
    assert trajectory.values.shape == (4, 4)
    assert trajectory.continues.shape == (3, 4)
    assert ((trajectory.continues >= 0) & (trajectory.continues <= 1)).all()
    z = state["latent"]
    for t in range(3):
        rows = torch.cat([z, actions[t]], -1)
        assert_close(trajectory.rewards[t], model.networks.mean(model.networks.reward(rows)))
        z = model.networks.dynamics(rows)
    again = model.rollout(state, actions, deterministic=True)
    assert_close(again.to_tensor("latent"), trajectory.to_tensor("latent"), rtol=0, atol=0)
    assert_close(again.values, trajectory.values, rtol=0, atol=0)


def test_rollout_of_nothing_and_of_another_mode() -> None:
    model = small_model()
    state = model.encode(torch.randn(2, 5))
    assert model.rollout(state, None).horizon == 0
    with pytest.raises(ValueError, match="autoregressive"):
        model.rollout(state, torch.zeros(1, 2, 2), mode="parallel")


def test_inputs_of_every_form() -> None:
    model = small_model()
    obs = torch.randn(2, 5)
    z = model.encode(obs)["latent"]
    assert_close(model.encode({"obs": obs})["latent"], z, rtol=0, atol=0)
    given = WorldModelInput(observations={"obs": obs})
    assert_close(model.encode(given)["latent"], z, rtol=0, atol=0)
    action = torch.zeros(2, 2)
    payload = ActionPayload(kind="continuous", tensor=action)
    state = model.encode(obs)
    assert_close(
        model.transition(state, payload)["latent"], model.transition(state, action)["latent"]
    )


def test_wrong_shapes_name_what_was_expected_and_given() -> None:
    model = small_model()
    with pytest.raises(ShapeMismatchError, match=r"\(2, 7\).*\[B, 5\]"):
        model.encode(torch.randn(2, 7))
    with pytest.raises(ShapeMismatchError, match="5"):
        model.encode(torch.randn(5))
    with pytest.raises(ShapeMismatchError, match=r"\(2, 3\)"):
        model.transition(model.encode(torch.randn(2, 5)), torch.zeros(2, 3))
    with pytest.raises(ShapeMismatchError, match="4 rows"):
        model.loss(random_batch(model.config, length=3))


def test_capabilities() -> None:
    plain = small_model()
    assert plain.supports_planning
    assert plain.supports_reward
    assert not plain.supports_continue
    assert not plain.supports(Capability.OBS_DECODER)
    full = small_model(episodic=True, use_decoder=True)
    assert full.supports_continue
    assert full.supports(Capability.OBS_DECODER)
    assert not small_model(mpc=False).supports_planning
    assert isinstance(plain, WorldModel)


def test_what_the_family_cannot_do_is_told() -> None:
    with pytest.raises(ConfigurationError, match="discrete") as error:
        TDMPC2WorldModel(small_config(action_type="discrete"))
    assert "DreamerV3" in str(error.value)
    with pytest.raises(ConfigurationError, match="64x64"):
        TDMPC2WorldModel(small_config(obs_shape=(9, 84, 84)))
    with pytest.raises(ConfigurationError, match="vectors"):
        TDMPC2WorldModel(small_config(obs_shape=(4, 5)))
    with pytest.raises(ConfigurationError, match="several tasks"):
        TDMPC2WorldModel(small_config(obs_shape=(9, 64, 64), num_tasks=2))


def test_loss_is_a_scalar_without_side_effect() -> None:
    model = small_model(use_decoder=True, episodic=True)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    output = model.loss(random_batch(model.config))
    assert output.loss.shape == ()
    assert output.components.keys() == {
        "consistency",
        "reward",
        "value",
        "termination",
        "reconstruction",
    }
    output.loss.backward()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_decoder_learns_to_reconstruct() -> None:
    model = small_model(use_decoder=True, learning_rate=3e-3)
    assert model.networks.decoder is not None
    batch = random_batch(model.config)
    first = model.loss(batch).components["reconstruction"]
    run_updates(model, batch, 150)
    assert model.loss(batch).components["reconstruction"] < 0.8 * first
    reached = model.transition(model.encode(batch.obs[:, 0]), batch.actions[:, 0])  # type: ignore[index]
    assert model.decode(reached).predictions["obs"].shape == (6, 5)


# ---------------------------------------------------------------------------- component slots


class ScaledEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 16)

    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        return State({"latent": torch.softmax(self.linear(observations["obs"]), -1)})


class IgnoresActions:
    def __init__(self, model: TDMPC2WorldModel) -> None:
        self.networks = model.networks

    def condition(
        self, state: State, action: Tensor | None, conditions: ConditionPayload
    ) -> Tensor:
        assert action is not None
        return torch.cat([state["latent"], torch.zeros_like(action)], -1)


class FrozenDynamics:
    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        z = state["latent"]
        return State({"latent": z, "reward": torch.zeros_like(z[:, 0])})


class ActionReward:
    """Rewards latents whose first entry is large; says nothing else."""

    def decode(self, state: State, conditions: ConditionPayload) -> ModelOutput:
        z = state["latent"]
        return ModelOutput({"reward": z[:, 0], "value": z[:, 0], "obs": z[:, :5]}, state=state)


class FirstActionTwice(AutoregressiveRollout):
    def rollout(
        self,
        model: WorldModel,
        initial_state: State,
        actions: Tensor,
        conditions: ConditionPayload,
        deterministic: bool = False,
    ) -> Trajectory:
        repeated = actions[:1].expand_as(actions)
        return super().rollout(model, initial_state, repeated, conditions, deterministic)


def effects(model: TDMPC2WorldModel) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, rollout latents and planned actions under fixed noise."""
    torch.manual_seed(1)
    batch = random_batch(model.config)
    obs, actions = torch.randn(3, 5), torch.rand(3, 3, 2)
    torch.manual_seed(2)
    loss = model.loss(batch).loss.detach()
    trajectory = model.rollout(model.encode(obs), actions).detach()
    torch.manual_seed(3)
    first = torch.ones(3, dtype=torch.bool)
    planned, _ = model.policy(obs, model.initial_carry(3), first, explore=False)
    assert trajectory.rewards is not None
    return (
        loss,
        torch.cat([trajectory.to_tensor("latent").flatten(), trajectory.rewards.flatten()]),
        planned,
    )


@pytest.mark.parametrize("slot", ["observation_encoder", "action_conditioner", "dynamics_model",
                                  "decoder_module", "rollout_executor"])  # fmt: skip
def test_a_component_takes_effect_in_loss_rollout_and_acting(slot: str) -> None:
    model = small_model()
    assert slot in model.composable_support
    parts = {
        "observation_encoder": ScaledEncoder,
        "action_conditioner": lambda: IgnoresActions(model),
        "dynamics_model": FrozenDynamics,
        "decoder_module": ActionReward,
        "rollout_executor": FirstActionTwice,
    }
    before = effects(model)
    model.replace_component(slot, parts[slot]())
    after = effects(model)
    for name, old, new in zip(("loss", "rollout", "acting"), before, after, strict=True):
        assert not torch.equal(old, new), name


def test_the_component_path_equals_the_straight_path() -> None:
    class SameRollout(AutoregressiveRollout):
        """The default by another name, so that the model goes through its slots."""

    model = small_model(episodic=True)
    straight = effects(model)
    model.replace_component("rollout_executor", SameRollout())
    assert not model.uses_own_components
    for old, new in zip(straight, effects(model), strict=True):
        assert_close(old, new, rtol=1e-5, atol=1e-5)


def test_the_same_kind_of_part_from_another_model_is_a_replacement() -> None:
    model, other = small_model(0), small_model(1)
    before = effects(model)
    model.replace_component("dynamics_model", other.dynamics_model)
    for old, new in zip(before, effects(model), strict=True):
        assert not torch.equal(old, new)


def test_an_attached_module_is_trained_and_saved() -> None:
    model = small_model()
    encoder = ScaledEncoder()
    model.replace_component("observation_encoder", encoder)
    before = encoder.linear.weight.detach().clone()
    run_updates(model, random_batch(model.config))
    assert not torch.equal(encoder.linear.weight, before)
    assert "observation_encoder.linear.weight" in model.state_dict()


def test_observation_of_images() -> None:
    model = small_model(obs_shape=(9, 64, 64), latent_dim=64, num_channels=4, use_decoder=True)
    obs = observation(model.config, 2)
    state = model.encode(obs)
    assert state["latent"].shape == (2, 64)
    reached = model.transition(state, torch.zeros(2, 2))
    assert model.decode(reached).predictions["obs"].shape == (2, 9, 64, 64)
    numbers, _ = run_updates(model, random_batch(model.config, size=2))
    assert all(torch.isfinite(torch.tensor(value)) for value in numbers.values())
    other_width = small_model(obs_shape=(3, 64, 64), latent_dim=16, num_channels=4)
    assert other_width.encode(observation(other_width.config, 2))["latent"].shape == (2, 16)
