"""Protocol and data types: every table row and example, for both families."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from worldflux import (
    ActionConditioner,
    ActionPayload,
    ActionSequence,
    Batch,
    Capability,
    CapabilityError,
    ConditionPayload,
    ConfigurationError,
    Decoder,
    DynamicsModel,
    LossOutput,
    ModelOutput,
    ObservationEncoder,
    PredictionSpec,
    RolloutExecutor,
    SequenceLayout,
    ShapeMismatchError,
    State,
    StateError,
    StateSpec,
    Trajectory,
    WorldModel,
    WorldModelInput,
    create_world_model,
)

FAMILIES: dict[str, dict[str, Any]] = {
    "dreamer:ci": {"obs_shape": (5,), "action_dim": 2, "actor_critic": True},
    "tdmpc2:ci": {
        "obs_shape": (5,),
        "action_dim": 2,
        "horizon": 2,
        "num_samples": 16,
        "num_elites": 4,
        "num_pi_trajs": 4,
    },
}
SLOTS = {
    "observation_encoder": ObservationEncoder,
    "action_conditioner": ActionConditioner,
    "dynamics_model": DynamicsModel,
    "decoder_module": Decoder,
    "rollout_executor": RolloutExecutor,
}
Model = Any


@pytest.fixture(params=FAMILIES, scope="module")
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    return create_world_model(request.param, **FAMILIES[request.param])


@pytest.fixture
def fresh(model: Model) -> Model:
    """A model of the same family that a test may take apart."""
    return type(model)(model.config)


def a_batch(model: Model, size: int = 3) -> Batch:
    length = 6 if model.config.model_type == "dreamer" else model.config.horizon + 1
    return Batch(
        obs=torch.randn(size, length, 5),
        actions=torch.rand(size, length, 2) * 2 - 1,
        rewards=torch.randn(size, length),
        terminations=torch.zeros(size, length, dtype=torch.bool),
    )


def documented_parameters(method: Any) -> dict[str, Any]:
    return {
        name: parameter.default
        for name, parameter in inspect.signature(method).parameters.items()
        if name != "self"
    }


REQUIRED = inspect.Parameter.empty

# ---------------------------------------------------------------------------- WorldModel


@pytest.mark.rows("protocol", "components", "attributes")
def test_components_and_attributes(model: Model) -> None:
    assert isinstance(model, nn.Module)
    assert inspect.isabstract(WorldModel)
    for slot, protocol in SLOTS.items():
        assert isinstance(getattr(model, slot), protocol), slot
    assert isinstance(model.capabilities, set)
    assert all(isinstance(capability, Capability) for capability in model.capabilities)
    assert model.composable_support <= SLOTS.keys()
    assert model.composable_support


@pytest.mark.rows("protocol", "encode")
def test_encode(model: Model, fresh: Model) -> None:
    assert documented_parameters(WorldModel.encode) == {"obs": REQUIRED, "deterministic": False}
    obs = torch.randn(4, 5)
    forms = (obs, {"obs": obs}, WorldModelInput(observations={"obs": obs}))
    states = [model.encode(form, deterministic=True) for form in forms]
    assert all(isinstance(state, State) and state.batch_size == 4 for state in states)
    for state in states[1:]:
        for name, tensor in states[0].tensors.items():
            assert torch.equal(state[name], tensor)
    with pytest.raises(ShapeMismatchError, match=r"\(4, 6\), expected \[B, 5\]"):
        model.encode(torch.randn(4, 6))
    with pytest.raises(ShapeMismatchError, match="'obs' is missing"):
        model.encode({"image": obs})
    fresh.observation_encoder = None
    with pytest.raises(NotImplementedError, match="observation_encoder"):
        fresh.encode(obs)


@pytest.mark.rows("protocol", "transition")
def test_transition(model: Model, fresh: Model) -> None:
    assert documented_parameters(WorldModel.transition) == {
        "state": REQUIRED,
        "action": REQUIRED,
        "conditions": None,
        "deterministic": False,
    }
    state = model.encode(torch.randn(4, 5), deterministic=True)
    action = torch.rand(4, 2) * 2 - 1
    payload = ActionPayload(kind="continuous", tensor=action)
    one = model.transition(state, action, ConditionPayload(), deterministic=True)
    two = model.transition(state, payload, deterministic=True)
    assert isinstance(one, State)
    assert all(torch.equal(one[name], two[name]) for name in one.tensors)
    unconditional = model.transition(state, None, deterministic=True)
    assert not all(torch.equal(unconditional[name], one[name]) for name in one.tensors)
    fresh.dynamics_model = None
    with pytest.raises(NotImplementedError, match="dynamics_model"):
        fresh.transition(state, action)


@pytest.mark.rows("protocol", "decode")
def test_decode(model: Model, fresh: Model) -> None:
    assert documented_parameters(WorldModel.decode) == {"state": REQUIRED, "conditions": None}
    state = model.transition(model.encode(torch.randn(4, 5)), torch.zeros(4, 2))
    output = model.decode(state, ConditionPayload())
    assert isinstance(output, ModelOutput)
    assert output.state is state
    assert output.predictions["reward"].shape == (4,)
    fresh.decoder_module = None
    with pytest.raises(CapabilityError, match="decoder_module"):
        fresh.decode(state)
    with pytest.warns(UserWarning, match="does not read the condition 'goal'"):
        model.decode(state, ConditionPayload(goal=torch.zeros(4, 5)))


@pytest.mark.rows("protocol", "rollout")
def test_rollout(model: Model) -> None:
    assert documented_parameters(WorldModel.rollout) == {
        "initial_state": REQUIRED,
        "action_sequence": REQUIRED,
        "conditions": None,
        "deterministic": False,
        "mode": "autoregressive",
    }
    state = model.encode(torch.randn(4, 5), deterministic=True)
    actions = torch.rand(3, 4, 2) * 2 - 1
    steps = [ActionPayload(kind="continuous", tensor=action) for action in actions]
    forms = (
        actions,
        ActionPayload(kind="continuous", tensor=actions),
        ActionSequence(tensor=actions),
        ActionSequence(payloads=steps),
    )
    rolled = [model.rollout(state, form, deterministic=True) for form in forms]
    for trajectory in rolled:
        assert isinstance(trajectory, Trajectory)
        assert (trajectory.horizon, trajectory.batch_size) == (3, 4)
        assert torch.equal(trajectory.rewards, rolled[0].rewards)
    assert model.rollout(state, None).horizon == 0
    with pytest.raises(ValueError, match="step 1 of the action sequence carries no action"):
        model.rollout(state, ActionSequence(payloads=[steps[0], ActionPayload()]))
    with pytest.raises(ValueError, match="autoregressive"):
        model.rollout(state, actions, mode="parallel")
    with pytest.raises(ShapeMismatchError, match=r"\[T, 4, 2\]"):
        model.rollout(state, actions[:, :3])
    with pytest.raises(ValueError, match=r"wf\.sim\.wind"):
        model.rollout(state, None, ConditionPayload(extras={"wf.sim.wind": torch.zeros(4)}))


@pytest.mark.rows("protocol", "loss")
def test_loss(model: Model) -> None:
    assert documented_parameters(WorldModel.loss) == {"batch": REQUIRED}
    assert "loss" in WorldModel.__abstractmethods__
    for wrong in (None, {}):
        with pytest.raises(ConfigurationError, match=r"loss takes a worldflux\.Batch, not a "):
            model.loss(wrong)  # type: ignore[arg-type]
    output = model.loss(a_batch(model))
    assert isinstance(output, LossOutput)
    assert output.loss.requires_grad


# What the model does for each capability that it may declare.
def _policy_action(model: Model, explore: bool = False) -> Tensor:
    first = torch.ones(3, dtype=torch.bool)
    action, _ = model.policy(torch.randn(3, 5), model.initial_carry(3), first, explore=explore)
    return action


def _predictions(model: Model) -> dict[str, Tensor]:
    state = model.transition(model.encode(torch.randn(3, 5)), torch.zeros(3, 2))
    return model.decode(state).predictions


def _rollout(model: Model) -> Trajectory:
    return model.rollout(model.encode(torch.randn(3, 5)), torch.zeros(2, 3, 2))


EXERCISES = {
    Capability.LATENT_DYNAMICS: lambda m: _rollout(m).horizon == 2,
    Capability.REPRESENTATION: lambda m: m.encode(torch.randn(3, 5)).batch_size == 3,
    Capability.OBS_DECODER: lambda m: _predictions(m)["obs"].shape == (3, 5),
    Capability.REWARD_PRED: lambda m: _predictions(m)["reward"].shape == (3,),
    Capability.CONTINUE_PRED: lambda m: bool(
        ((_predictions(m)["continue"] >= 0) & (_predictions(m)["continue"] <= 1)).all()
    ),
    Capability.VALUE: lambda m: _predictions(m)["value"].shape == (3,),
    Capability.POLICY: lambda m: _policy_action(m).shape == (3, 2),
    Capability.PLANNING: lambda m: bool((_policy_action(m).abs() <= 1).all()),
}


@pytest.mark.rows("protocol", "supports", "properties")
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dreamer:ci", {}),
        ("dreamer:ci", {"actor_critic": False}),
        ("tdmpc2:ci", {}),
        ("tdmpc2:ci", {"episodic": True, "use_decoder": True}),
        ("tdmpc2:ci", {"mpc": False}),
    ],
    ids=str,
)
def test_every_declared_capability_is_true(name: str, changes: dict[str, Any]) -> None:
    model = create_world_model(name, **{**FAMILIES[name], **changes})
    assert {Capability.REPRESENTATION, Capability.LATENT_DYNAMICS} <= model.capabilities
    for capability in model.capabilities:
        assert EXERCISES[capability](model), capability
    for capability in Capability:
        assert model.supports(capability) == (capability in model.capabilities)
    assert model.supports_reward == model.supports(Capability.REWARD_PRED)
    assert model.supports_continue == model.supports(Capability.CONTINUE_PRED)
    assert model.supports_planning == model.supports(Capability.PLANNING)
    # What is not declared is not offered either.
    predictions = _predictions(model)
    for undeclared, key in (
        (Capability.OBS_DECODER, "obs"),
        (Capability.CONTINUE_PRED, "continue"),
    ):
        assert model.supports(undeclared) == (key in predictions)


@pytest.mark.rows("protocol", "model example")
def test_model_example() -> None:
    """As documented, but for the size: `dreamer:ci` is the same family in a test's memory."""
    model = create_world_model(
        "dreamer:ci", obs_shape=(3, 64, 64), action_dim=6, cnn_depth=4, decoder_blocks=2
    )
    obs, action = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8), torch.zeros(2, 6)

    state = model.encode(obs)
    next_state = model.transition(state, action)
    output = model.decode(next_state)
    assert output.predictions["obs"].shape == (2, 3, 64, 64)


# ---------------------------------------------------------------------------- containers

CONTAINERS: dict[type, dict[str, tuple[str, Any]]] = {
    ActionPayload: {
        "kind": ("ActionKind", "none"),
        "tensor": ("Tensor | None", None),
        "tokens": ("Tensor | None", None),
        "latent": ("Tensor | None", None),
        "text": ("list[str] | None", None),
        "extras": ("dict[str, Any]", {}),
    },
    ConditionPayload: {
        "text_condition": ("Tensor | list[str] | None", None),
        "goal": ("Tensor | None", None),
        "spatial": ("Tensor | None", None),
        "camera_pose": ("Tensor | None", None),
        "extras": ("dict[str, Any]", {}),
    },
    WorldModelInput: {
        "observations": ("dict[str, Tensor]", {}),
        "context": ("dict[str, Tensor]", {}),
        "action": ("ActionPayload | None", None),
        "conditions": ("ConditionPayload", ConditionPayload()),
    },
    ModelOutput: {
        "predictions": ("dict[str, Tensor]", {}),
        "state": ("State | None", None),
        "uncertainty": ("Tensor | None", None),
        "aux": ("dict[str, Any]", {}),
        "prediction_spec": ("PredictionSpec | None", None),
        "sequence_layout": ("SequenceLayout | None", None),
    },
    LossOutput: {
        "loss": ("Tensor", REQUIRED),
        "components": ("dict[str, Tensor]", {}),
        "metrics": ("dict[str, float]", {}),
    },
    Trajectory: {
        "states": ("list[State]", REQUIRED),
        "actions": ("Tensor", REQUIRED),
        "rewards": ("Tensor | None", None),
        "values": ("Tensor | None", None),
        "continues": ("Tensor | None", None),
        "state_spec": ("StateSpec | None", None),
        "sequence_layout": ("SequenceLayout | None", None),
    },
}


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    factory = field.default_factory
    return REQUIRED if factory is dataclasses.MISSING else factory()


@pytest.mark.rows(
    "protocol",
    "ActionPayload",
    "ConditionPayload",
    "WorldModelInput",
    "ModelOutput",
    "LossOutput",
    "Trajectory",
)
@pytest.mark.parametrize("container", CONTAINERS, ids=lambda c: c.__name__)
def test_fields_types_and_defaults(container: type) -> None:
    fields = dataclasses.fields(container)
    assert {f.name: (f.type, default_of(f)) for f in fields} == CONTAINERS[container]


@pytest.mark.rows("protocol", "ActionPayload examples", "ActionPayload methods")
def test_action_payload_examples() -> None:
    # Continuous action
    action = ActionPayload(kind="continuous", tensor=torch.randn(6))
    action.validate(api_version="v0.2", action_dim=6)
    assert action.primary() is action.tensor

    # Discrete action
    action = ActionPayload(kind="discrete", tensor=torch.tensor([3]))
    action.validate(action_dim=4)
    assert action.primary() is action.tensor

    # Token-based action
    action = ActionPayload(kind="token", tokens=torch.tensor([42, 7, 13]))
    action.validate()
    assert action.primary() is action.tokens

    assert ActionPayload(kind="latent", latent=torch.zeros(2)).primary() is not None
    text = ActionPayload(kind="text", text=["open the door"])
    text.validate()
    assert text.primary() is None
    assert ActionPayload().primary() is None
    with pytest.raises(ValueError, match="carries nothing"):
        ActionPayload(tensor=torch.zeros(1)).validate()
    with pytest.raises(ValueError, match="carries tensor, not tensor and latent"):
        ActionPayload(kind="continuous", tensor=torch.zeros(1), latent=torch.zeros(1)).validate()
    with pytest.raises(ValueError, match="must be 6"):
        ActionPayload(kind="continuous", tensor=torch.zeros(5)).validate(action_dim=6)
    with pytest.raises(ValueError, match="index below 4"):
        ActionPayload(kind="discrete", tensor=torch.tensor([4])).validate(action_dim=4)
    with pytest.raises(ValueError, match="api_version"):
        ActionPayload().validate(api_version="newest")


@pytest.mark.rows("protocol", "ConditionPayload")
def test_condition_names() -> None:
    declared = {"goal", "wf.robot.mass"}
    ConditionPayload(goal=torch.zeros(1), extras={"wf.robot.mass": 1.0}).validate(declared)
    for name in ("mass", "wf.mass", "wf.Robot.mass", "wf.robot.mass.kg"):
        with pytest.raises(ValueError, match="must be named"):
            ConditionPayload(extras={name: 1.0}).validate({name})
    with pytest.warns(UserWarning, match="does not read the condition 'spatial'"):
        ConditionPayload(spatial=torch.zeros(1)).validate(declared)


@pytest.mark.rows("protocol", "ModelOutput example", "LossOutput example", "Trajectory example")
def test_output_examples(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    state = model.encode(torch.randn(2, 5))
    output = model.decode(state)
    if model.supports(Capability.OBS_DECODER):
        obs_pred = output.predictions["obs"]
        assert obs_pred.shape == (2, 5)
    reward_pred = output.predictions.get("reward")
    assert (reward_pred is None) == (model.config.model_type == "tdmpc2")  # a root has none

    loss_out = model.loss(a_batch(model))
    loss_out.loss.backward()
    # Log individual components
    for name, value in loss_out.components.items():
        print(f"{name}: {value.item():.4f}")
    assert "reward: " in capsys.readouterr().out
    model.zero_grad()

    initial_state, action_sequence = state, torch.zeros(3, 2, 2)
    trajectory = model.rollout(initial_state, action_sequence)
    print(f"Horizon: {trajectory.horizon}")
    print(f"Rewards shape: {trajectory.rewards.shape}")
    assert capsys.readouterr().out == "Horizon: 3\nRewards shape: torch.Size([3, 2])\n"
    # Stack deterministic state across time
    key = "deter" if model.config.model_type == "dreamer" else "latent"
    deter_stack = trajectory.to_tensor(key)
    assert deter_stack.shape[:2] == (4, 2)


def test_outputs_carry_their_specs(model: Model) -> None:
    state = model.encode(torch.randn(2, 5))
    output = model.decode(state)
    assert output.prediction_spec == PredictionSpec.of(output.predictions)
    assert output.sequence_layout == SequenceLayout(dict.fromkeys(output.predictions, "B"))
    trajectory = model.rollout(state, torch.zeros(3, 2, 2))
    assert trajectory.state_spec == StateSpec.of(state.tensors)
    assert trajectory.sequence_layout is not None
    assert trajectory.sequence_layout.axes["rewards"] == "TB"


def states(count: int, batch: int = 2) -> list[State]:
    return [State({"deter": torch.full((batch, 3), float(i))}) for i in range(count)]


@pytest.mark.rows("protocol", "Trajectory properties", "Trajectory methods")
def test_trajectory_methods() -> None:
    weight = torch.ones(2, 3, requires_grad=True)
    trajectory = Trajectory(
        [State({"deter": weight * i}) for i in range(4)], torch.zeros(3, 2, 6), torch.ones(3, 2)
    )
    assert (trajectory.horizon, trajectory.batch_size) == (3, 2)
    assert trajectory.to_tensor("deter").shape == (4, 2, 3)
    assert not trajectory.detach().to_tensor("deter").requires_grad
    moved = trajectory.to(torch.device("meta"))
    assert moved.states[3].device.type == moved.actions.device.type == "meta"
    assert moved.rewards is not None
    assert moved.rewards.device.type == "meta"
    assert moved.values is None
    with pytest.raises(StateError, match="no 'latent'"):
        trajectory.to_tensor("latent")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"states": states(3)}, "has 4 states, not 3"),
        ({"states": [*states(3), *states(1, batch=5)]}, r"states\[3\] has 5 rows"),
        ({"actions": torch.zeros(3, 5, 1)}, r"actions has shape \(3, 5, 1\)"),
        ({"rewards": torch.zeros(4, 2)}, r"expected \(3, 2\)"),
        ({"values": torch.zeros(3, 2)}, r"expected \(4, 2\)"),
        ({"continues": torch.zeros(3, 1)}, r"expected \(3, 2\)"),
        ({"state_spec": StateSpec({"deter": (4,)})}, r"expected \[B, 4\]"),
        ({"state_spec": StateSpec({"latent": (4,)})}, "has no 'latent'"),
    ],
)
def test_a_trajectory_that_contradicts_itself_is_refused(parts: dict[str, Any], told: str) -> None:
    with pytest.raises(StateError, match=told):
        Trajectory(**{"states": states(4), "actions": torch.zeros(3, 2, 1), **parts})


def test_an_output_that_breaks_its_promise_is_refused() -> None:
    ModelOutput({"reward": torch.zeros(4)}, prediction_spec=PredictionSpec({"reward": ()}))
    with pytest.raises(StateError, match="has no 'obs'"):
        ModelOutput({"reward": torch.zeros(4)}, prediction_spec=PredictionSpec({"obs": (5,)}))
    with pytest.raises(StateError, match=r"shape \(4, 1\), expected \[B\]"):
        ModelOutput({"reward": torch.zeros(4, 1)}, prediction_spec=PredictionSpec({"reward": ()}))
    with pytest.raises(ShapeMismatchError, match=r"a scalar, not a tensor of shape \(3,\)"):
        LossOutput(torch.zeros(3))
