"""The containers of the protocol: what they hold, and what they refuse by name."""

from __future__ import annotations

import pytest
import torch

from worldflux import (
    ActionPayload,
    ActionSequence,
    Batch,
    ConditionPayload,
    ConfigurationError,
    LossOutput,
    ModelOutput,
    ShapeMismatchError,
    State,
    StateError,
    Trajectory,
    WorldModelInput,
)


def states(count: int, batch: int = 2) -> list[State]:
    return [State({"deter": torch.full((batch, 3), float(i))}) for i in range(count)]


def test_a_state_knows_its_batch_and_moves_as_a_whole() -> None:
    state = State({"deter": torch.zeros(4, 8), "stoch": torch.zeros(4, 3, 5)}, {"step": 1})
    state.validate()
    assert state.batch_size == 4
    copy = state.clone()
    copy.tensors["deter"] += 1
    assert state["deter"].sum() == 0
    assert state.to("cpu").detach().meta == {"step": 1}
    assert state.get("logits") is None


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({}, "no tensors"),
        ({"a": torch.zeros(2, 1), "b": torch.zeros(3, 1)}, "batch sizes"),
        ({"a": torch.tensor(1.0)}, "no batch axis"),
    ],
)
def test_an_inconsistent_state_is_told(tensors: dict[str, torch.Tensor], told: str) -> None:
    with pytest.raises(StateError, match=told):
        State(tensors).validate()


def test_a_trajectory_stacks_and_counts() -> None:
    trajectory = Trajectory(
        states(4), torch.zeros(3, 2, 6), rewards=torch.zeros(3, 2), values=torch.zeros(4, 2)
    )
    assert (trajectory.horizon, trajectory.batch_size) == (3, 2)
    assert trajectory.to_tensor("deter")[:, 0, 0].tolist() == [0, 1, 2, 3]
    assert trajectory.to(torch.device("cpu")).detach().rewards is not None


@pytest.mark.parametrize(
    "parts",
    [
        {"states": states(3), "actions": torch.zeros(3, 2, 1)},
        {"states": states(4), "actions": torch.zeros(3, 2, 1), "rewards": torch.zeros(4, 2)},
        {"states": states(4), "actions": torch.zeros(3, 2, 1), "values": torch.zeros(3, 2)},
        {"states": states(4), "actions": torch.zeros(3, 2, 1), "continues": torch.zeros(3, 1)},
    ],
)
def test_a_trajectory_of_other_lengths_is_refused(parts: dict[str, object]) -> None:
    with pytest.raises(StateError):
        Trajectory(**parts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "payload",
    [
        ActionPayload(kind="continuous", tensor=torch.randn(6)),
        ActionPayload(kind="discrete", tensor=torch.tensor([3])),
        ActionPayload(kind="token", tokens=torch.tensor([42, 7, 13])),
        ActionPayload(),
    ],
)
def test_the_documented_payloads_are_valid(payload: ActionPayload) -> None:
    payload.validate()
    assert (payload.primary() is None) == (payload.kind == "none")


@pytest.mark.parametrize(
    "payload",
    [
        ActionPayload(kind="none", tensor=torch.zeros(1)),
        ActionPayload(kind="continuous"),
        ActionPayload(kind="continuous", tensor=torch.zeros(1), latent=torch.zeros(1)),
        ActionPayload(kind="token", tensor=torch.zeros(1)),
        ActionPayload(kind="jump", tensor=torch.zeros(1)),  # type: ignore[arg-type]
    ],
)
def test_a_contradicting_payload_is_refused(payload: ActionPayload) -> None:
    with pytest.raises(ValueError, match="action"):
        payload.validate()


def test_a_payload_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="must be 6"):
        ActionPayload(kind="continuous", tensor=torch.zeros(2, 5)).validate(action_dim=6)


def test_conditions_are_namespaced_and_declared() -> None:
    ConditionPayload().validate()
    declared = ConditionPayload(extras={"wf.robot.mass": torch.ones(1)})
    declared.validate({"wf.robot.mass"})
    with pytest.raises(ConfigurationError, match="takes no condition"):
        declared.validate()
    with pytest.raises(ConfigurationError, match="must be named"):
        ConditionPayload(extras={"mass": 1}).validate({"mass"})


def test_a_sequence_is_one_thing_or_the_other() -> None:
    with pytest.raises(ConfigurationError):
        ActionSequence()
    with pytest.raises(ConfigurationError):
        ActionSequence(torch.zeros(1, 1, 1), [ActionPayload()])


def test_containers_default_to_empty() -> None:
    assert WorldModelInput().observations == {}
    assert ModelOutput().predictions == {}
    assert LossOutput(torch.zeros(())).components == {}


def test_a_batch_built_by_hand_fills_its_flags() -> None:
    terminations = torch.tensor([[False, True, False]])
    batch = Batch(torch.zeros(1, 3, 2), torch.zeros(1, 3, 1), torch.zeros(1, 3), terminations)
    batch.validate()
    assert batch.firsts.tolist() == [[True, False, True]]
    assert batch.lasts.tolist() == [[False, True, False]]


def test_a_batch_refuses_what_does_not_fit() -> None:
    parts = {
        "obs": {"a": torch.zeros(2, 3, 1)},
        "actions": torch.zeros(2, 3, 1),
        "rewards": torch.zeros(2, 3),
        "terminations": torch.zeros(2, 3, dtype=torch.bool),
    }
    Batch.from_dict(parts).validate()
    with pytest.raises(ShapeMismatchError, match="actions"):
        Batch.from_dict({**parts, "actions": torch.zeros(2, 4, 1)}).validate()
    with pytest.raises(ConfigurationError, match="no field 'reward'"):
        Batch.from_dict({**parts, "reward": torch.zeros(2, 3)})
