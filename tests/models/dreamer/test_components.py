"""Replaced components take effect in loss, rollout and acting; fused paths equal the slots."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from worldflux.core.components import COMPONENT_SLOTS
from worldflux.core.learning import LearningOverrides
from worldflux.core.outputs import ModelOutput, Trajectory
from worldflux.core.payloads import ConditionPayload
from worldflux.core.rollout import AutoregressiveRollout
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel
from worldflux.errors import CapabilityError, ConfigurationError, StateError
from worldflux.models.dreamerv3 import DreamerV3WorldModel

from .builders import IMAGE, SEVERAL, observation, random_batch, small_model


class Passing:
    """Stands in a slot and hands on to the model's own part."""

    def __init__(self, own: Any) -> None:
        self.own = own
        self.calls = 0


class PassingEncoder(Passing):
    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        self.calls += 1
        return self.own.encode(observations, deterministic)


class PassingConditioner(Passing):
    def condition(
        self, state: State, action: Tensor | None, conditions: ConditionPayload
    ) -> Tensor | None:
        self.calls += 1
        return self.own.condition(state, action, conditions)


class PassingDynamics(Passing):
    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        self.calls += 1
        return self.own.transition(state, conditioned, deterministic)


class Blind(PassingEncoder):
    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        return State({"tokens": super().encode(observations)["tokens"] * 0})


class Paralysed(PassingConditioner):
    def condition(
        self, state: State, action: Tensor | None, conditions: ConditionPayload
    ) -> Tensor | None:
        conditioned = super().condition(state, action, conditions)
        assert conditioned is not None
        return conditioned * 0


class Frozen(PassingDynamics):
    def transition(
        self, state: State, conditioned: Tensor | None, deterministic: bool = False
    ) -> State:
        following = super().transition(state, conditioned, deterministic)
        return State({**following.tensors, "deter": following["deter"] * 0.5})


PASSING = {
    "observation_encoder": PassingEncoder,
    "action_conditioner": PassingConditioner,
    "dynamics_model": PassingDynamics,
}
CHANGING = {
    "observation_encoder": Blind,
    "action_conditioner": Paralysed,
    "dynamics_model": Frozen,
}


def outcome(model: DreamerV3WorldModel) -> dict[str, Tensor]:
    """Loss, gradient, rollout and two actions of a model, all of them by modes."""
    model.sampling = False
    torch.manual_seed(4)
    batch = random_batch(model)
    obs = observation(model, 2, 2)
    (phase,) = model.phases(LearningOverrides())
    output = phase.loss(batch, {})
    output.loss.backward()
    carry, first = model.initial_carry(2), torch.tensor([True, True])
    frames = {"": obs} if isinstance(obs, Tensor) else obs
    for t in range(2):
        frame = {name: value[:, t] for name, value in frames.items()}
        action, carry = model.policy(frame.get("", frame), carry, first & (t == 0), explore=False)
    state = model.encode(frame.get("", frame), deterministic=True)
    trajectory = model.rollout(state, torch.full((3, 2, 2), 0.7), deterministic=True)
    gradient = model.rssm.gates.weight.grad
    assert gradient is not None
    assert trajectory.rewards is not None
    return {
        "loss": output.loss.detach(),
        "gradient": gradient,
        "action": action,
        "rollout": trajectory.rewards.detach(),
    }


@pytest.mark.parametrize("slot", PASSING)
@pytest.mark.parametrize("changes", [{}, IMAGE, SEVERAL], ids=["vector", "image", "several"])
def test_the_fused_paths_say_what_the_slots_say(slot: str, changes: dict[str, Any]) -> None:
    plain = outcome(small_model(recipe="official", **changes))
    model = small_model(recipe="official", **changes)
    component = PASSING[slot](getattr(model, slot))
    model.replace_component(slot, component)
    through = outcome(model)
    assert component.calls > 0
    for name, value in plain.items():
        assert_close(through[name], value, rtol=2e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("slot", CHANGING)
def test_a_replacement_changes_loss_rollout_and_acting(slot: str) -> None:
    plain = outcome(small_model(recipe="official"))
    model = small_model(recipe="official")
    model.replace_component(slot, CHANGING[slot](getattr(model, slot)))
    changed = outcome(model)
    for name, value in plain.items():
        assert not torch.allclose(changed[name], value, rtol=1e-3), name


class OwnDecoder(nn.Module):
    """A decoder of its own weights that answers in the environment's units."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.linear = nn.Linear(16 + 12, 5)

    def decode(self, state: State, conditions: ConditionPayload) -> ModelOutput:
        seen = self.linear(torch.cat([state["deter"], state["stoch"].flatten(1)], -1))
        every = {"obs": seen, "reward": seen[:, 0], "continue": torch.sigmoid(seen[:, 1])}
        return ModelOutput({name: every[name] for name in self.names}, state)


def test_a_replaced_decoder_is_trained_and_decides_rewards() -> None:
    model = small_model()
    decoder = OwnDecoder("obs", "reward", "continue")
    model.replace_component("decoder_module", decoder)
    (phase,) = model.phases(LearningOverrides())
    assert {id(p) for p in decoder.parameters()} <= {id(p) for p in phase.parameters}
    output = phase.loss(random_batch(model), {})
    assert output.components.keys() == small_model().loss(random_batch(model)).components.keys()
    output.loss.backward()
    assert decoder.linear.weight.grad is not None
    assert model.encoder.mlp[0].linear.weight.grad is not None
    assert model.reward.out.weight.grad is None
    state = model.encode(observation(model, 2))
    trajectory = model.rollout(state, torch.zeros(3, 2, 2))
    assert trajectory.values is None
    expected = decoder.decode(trajectory.states[1], ConditionPayload()).predictions["reward"]
    assert_close(trajectory.rewards[0], expected)


def test_a_decoder_without_rewards_can_learn_a_world_but_no_behaviour() -> None:
    world = small_model(actor_critic=False)
    world.replace_component("decoder_module", OwnDecoder("obs"))
    names = set(world.loss(random_batch(world)).components)
    assert names == {"kl_dynamics", "kl_representation", "reconstruction"}
    agent = small_model()
    agent.replace_component("decoder_module", OwnDecoder("obs", "reward"))
    with pytest.raises(CapabilityError, match="continue"):
        agent.loss(random_batch(agent))


def test_the_decoder_of_another_model_is_a_replacement_too() -> None:
    model, other = small_model(), small_model(seed=3)
    batch = random_batch(model)
    model.sampling = False
    before = model.loss(batch).components
    model.replace_component("decoder_module", other.decoder_module)
    after = model.loss(batch).components
    assert not torch.allclose(after["reconstruction"], before["reconstruction"])
    assert not torch.allclose(after["reward"], before["reward"])


def test_a_copied_model_keeps_its_fused_paths() -> None:
    model = copy.deepcopy(small_model())
    assert model.uses_own(*COMPONENT_SLOTS)
    assert model.dynamics_model.rssm is model.rssm
    assert model.decoder_module.decoder is model.decoder


class TwoStepsLess(AutoregressiveRollout):
    def rollout(
        self,
        model: WorldModel,
        initial_state: State,
        actions: Tensor,
        conditions: ConditionPayload,
        deterministic: bool = False,
    ) -> Trajectory:
        return super().rollout(model, initial_state, actions[:-2], conditions, deterministic)


def test_a_replaced_rollout_executor_rolls_out() -> None:
    model = small_model()
    model.replace_component("rollout_executor", TwoStepsLess())
    state = model.encode(observation(model, 2))
    assert model.rollout(state, torch.zeros(5, 2, 2)).horizon == 3


def test_an_encoder_without_tokens_is_told_when_it_is_needed() -> None:
    class Whole(PassingEncoder):
        def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
            size = observations["obs"].shape[0]
            return State({"deter": torch.zeros(size, 16), "stoch": torch.zeros(size, 3, 4)})

    model = small_model()
    model.replace_component("observation_encoder", Whole(None))
    assert model.encode(observation(model, 2))["deter"].shape == (2, 16)
    with pytest.raises(StateError, match="tokens"):
        model.loss(random_batch(model))


def test_what_does_not_fit_a_slot_is_refused() -> None:
    model = small_model()
    assert model.composable_support == {
        "observation_encoder",
        "action_conditioner",
        "dynamics_model",
        "decoder_module",
        "rollout_executor",
    }
    with pytest.raises(ConfigurationError, match="transition"):
        model.replace_component("dynamics_model", object())
