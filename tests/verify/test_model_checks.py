"""Model checks on a world small enough to be known exactly, and on models that are wrong of it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from line_family import LineConfig, LineModel
from torch import Tensor

from worldflux.core.outputs import ModelOutput
from worldflux.core.specs import Capability
from worldflux.core.state import State
from worldflux.envs.spec import EnvironmentSpec
from worldflux.evaluation.episodes import RecordedEpisode
from worldflux.verify.model_checks import check_contract, check_predictions

SPEC = EnvironmentSpec("Point-v0", (2,), 2, "continuous", 40)


class PointConfig(LineConfig):
    """The line family with a critic's discount."""

    discount: ClassVar[float] = 0.9


class PointParts:
    """A point that an action pushes: o' = o + a / 2; its reward is -|o'|."""

    def __init__(self, offset: float, push: float, gain: float) -> None:
        self.offset, self.push, self.gain = offset, push, gain

    def encode(self, observations: dict[str, Tensor], deterministic: bool = False) -> State:
        return State({"latent": next(iter(observations.values()))})

    def transition(self, state: State, action: Tensor, deterministic: bool = False) -> State:
        return State({"latent": state["latent"] + self.push * action})

    def decode(self, state: State, conditions: Any = None) -> ModelOutput:
        distance = state["latent"].norm(dim=-1)
        predictions = {
            "obs": state["latent"],
            "reward": self.gain * -distance + self.offset,
            "value": -distance,
        }
        return ModelOutput(predictions, state=state)


def point_model(offset: float = 0.0, push: float = 0.5, gain: float = 1.0) -> LineModel:
    model = LineModel(PointConfig(obs_shape=(2,), action_dim=2))
    parts: Any = PointParts(offset, push, gain)
    model.observation_encoder = model.dynamics_model = model.decoder_module = parts
    model.capabilities = {
        Capability.OBS_DECODER,
        Capability.REWARD_PRED,
        Capability.VALUE,
        Capability.LATENT_DYNAMICS,
    }
    return model


@pytest.fixture(scope="module")
def episodes() -> list[RecordedEpisode]:
    """Eight random walks of the point."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(8):
        actions = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
        start = rng.normal(size=(1, 2)).astype(np.float32)
        obs = np.concatenate([start, start + 0.5 * np.cumsum(actions, 0)]).astype(np.float32)
        rewards = -np.linalg.norm(obs[1:], axis=1).astype(np.float32)
        found.append(RecordedEpisode({"obs": obs}, actions, rewards))
    return found


def status(model: LineModel, episodes: list[RecordedEpisode]) -> dict[str, str]:
    return {check.name: check.status for check in check_predictions(model, episodes, 0.05, 0)}


def test_a_model_that_knows_the_world_passes(episodes: list[RecordedEpisode]) -> None:
    found = status(point_model(), episodes)
    value = found.pop("value")
    assert set(found.values()) == {"pass"}, found
    assert value in ("pass", "warn")  # nobody trained that critic


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        ({"offset": 0.5}, "reward bias"),
        ({"offset": -0.5}, "reward bias"),
        ({"gain": -1.0}, "reward model"),
        ({"push": 0.0}, "actions"),  # as a model that was trained on shuffled actions
        ({"push": -0.5}, "actions"),
        ({"push": 40.0}, "observation model"),
    ],
)
def test_what_is_wrong_is_told_by_its_check(
    episodes: list[RecordedEpisode], wrong: dict[str, float], check: str
) -> None:
    assert status(point_model(**wrong), episodes)[check] == "fail"


def test_numbers_stand_beside_every_judgement(episodes: list[RecordedEpisode]) -> None:
    for check in check_predictions(point_model(), episodes, 0.05, 0):
        assert check.numbers, check


def test_rewards_that_never_change_are_not_applicable(episodes: list[RecordedEpisode]) -> None:
    flat = [RecordedEpisode(e.obs, e.actions, np.ones_like(e.rewards)) for e in episodes]
    found = status(point_model(gain=0.0, offset=1.0), flat)
    assert found["reward model"] == "not_applicable"
    assert "reward bias" not in found


def test_what_short_episodes_cannot_decide_is_said(episodes: list[RecordedEpisode]) -> None:
    short = [
        RecordedEpisode({"obs": e.obs["obs"][:8]}, e.actions[:7], e.rewards[:7]) for e in episodes
    ]
    found = {check.name: check for check in check_predictions(point_model(), short, 0.05, 0)}
    for name in ("reward bias", "actions"):
        assert found[name].status == "not_applicable"
        assert found[name].detail == "not measured: fewer than 3 episodes have 10 steps"


def test_a_model_keeps_its_contract() -> None:
    assert check_contract(point_model(), SPEC, 0).status == "pass"


@pytest.mark.parametrize("fault", ["not finite", "no rewards", "wrong actions"])
def test_a_broken_contract_is_named(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = point_model(offset=float("nan")) if fault == "not finite" else point_model()
    if fault == "no rewards":
        model.decoder_module = None
    elif fault == "wrong actions":
        actions = torch.full((3, 2), 7.0)
        monkeypatch.setattr(model, "policy", lambda *args, **kwargs: (actions, {}))
    check = check_contract(model, SPEC, 0)
    assert check.status == "fail"
    words = {"not finite": "not finite", "no rewards": "no rewards", "wrong actions": "-1, 1"}
    assert words[fault] in check.detail
