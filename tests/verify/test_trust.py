"""`worldflux trust`: horizons of models that are right, wrong and deaf; the signal; the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import worldflux
from worldflux.core.outputs import ModelOutput
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel
from worldflux.errors import CapabilityError, CheckpointError, ConfigurationError
from worldflux.evaluation.episodes import RecordedEpisode
from worldflux.evaluation.open_loop import Scales
from worldflux.evaluation.trust import LEAST_TRUST, Calibration, TrustMeter
from worldflux.factory import create_world_model
from worldflux.project.evaluate import evaluate_run
from worldflux.project.imagine import imagine_run
from worldflux.project.open_run import open_run
from worldflux.project.play import play_run
from worldflux.project.run import train_project
from worldflux.project.trust import calibration_of
from worldflux.training.checkpoints import check
from worldflux.verify.quick import verify_quick
from worldflux.verify.trust import MODEL, calibrate, episode_errors, trust_run

from ..warm import Warm


class Drift:
    """All parts of a model of x' = x + gain a, which hears its actions or does not."""

    def __init__(self, gain: float) -> None:
        self.gain = gain

    def encode(self, observations: dict[str, Any], deterministic: bool = False) -> State:
        return State({"latent": observations["obs"]})

    def condition(self, state: State, action: Any, conditions: Any) -> Any:
        return action

    def transition(self, state: State, conditioned: Any, deterministic: bool = False) -> State:
        moved = state["latent"] + self.gain * conditioned
        return State({"latent": moved, "reward": moved.sum(-1)})

    def decode(self, state: State, conditions: Any) -> ModelOutput:
        found = {"obs": state["latent"], "value": state["latent"].sum(-1)}
        reward = state.get("reward")
        return ModelOutput(found if reward is None else {**found, "reward": reward})


def drift_model(gain: float) -> WorldModel:
    model = create_world_model("tdmpc2:ci", obs_shape=(2,), action_dim=2, use_decoder=True)
    for slot in ("observation_encoder", "action_conditioner", "dynamics_model", "decoder_module"):
        model.replace_component(slot, Drift(gain))
    return model


def episodes(count: int, seed: int, gain: float = 1.0, noise: float = 0.1) -> list[RecordedEpisode]:
    """Episodes of x' = x + gain a + noise, of 20 to 40 steps."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(count):
        length = int(rng.integers(20, 41))
        actions = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
        moves = gain * actions + noise * rng.normal(size=actions.shape).astype(np.float32)
        places = np.concatenate([np.zeros((1, 2), np.float32), moves.cumsum(0)]).astype(np.float32)
        found.append(RecordedEpisode({"obs": places}, actions, places[1:].sum(1)))
    return found


def calibrated(gain: float) -> Calibration:
    found = episodes(60, 0)
    return calibrate(drift_model(gain), found, 5, environment="drift", seed=0)


@pytest.fixture(scope="module")
def right() -> Calibration:
    return calibrated(1.0)


def test_a_model_that_is_right_is_trusted_as_far_as_was_measured(right: Calibration) -> None:
    assert right.horizon == 5
    assert set(right.kinds) == {"observation", "reward", "value"}
    assert 0.87 <= right.kinds["reward"].coverage <= 0.94
    radii = right.kinds["reward"].radius
    assert radii == sorted(radii)  # noise adds up
    assert "for 5 steps" in str(right)


def test_a_model_that_ignores_actions_is_trusted_for_no_step() -> None:
    found = calibrated(0.0)
    assert found.horizon == 0
    assert "not to be trusted" in str(found)
    assert "not measured" not in str(found)
    assert "(60 episodes are few: --episodes 100)" in str(found)


def test_a_model_that_takes_actions_for_their_opposite_is_trusted_for_no_step() -> None:
    assert calibrated(-1.0).horizon == 0


def test_fresh_episodes_are_in_their_intervals(right: Calibration) -> None:
    units = {name: value.numpy() for name, value in right.units.items()}
    fresh = episodes(150, 1)
    errors = episode_errors(drift_model(1.0), fresh, 5, Scales({}, units), 0)
    for name, kind in right.kinds.items():
        own = errors[name][:, MODEL]
        held = (own <= np.array(kind.radius)[:, None])[np.isfinite(own)]
        assert 0.85 <= held.mean() <= 0.95


def test_a_changed_world_is_not_trusted(right: Calibration) -> None:
    model = drift_model(1.0)
    known = [right.trust_of(model, episode).mean() for episode in episodes(5, 2)]
    changed = [right.trust_of(model, episode)[10:].mean() for episode in episodes(5, 3, gain=0.3)]
    assert min(known) > 0.7
    assert max(changed) < LEAST_TRUST


def test_while_acting_trust_is_that_of_the_recorded_episode(right: Calibration) -> None:
    """The meter of a batch gives each environment the number of its own steps, causally."""
    model = drift_model(1.0)
    pair = [e for e in episodes(8, 4) if len(e) >= 30][:2]
    expected = [right.trust_of(model, episode) for episode in pair]
    meter = TrustMeter(model, right)
    for t in range(30):
        obs = torch.from_numpy(np.stack([e.obs["obs"][t] for e in pair]))
        actions = torch.from_numpy(np.stack([e.actions[t] for e in pair]))
        meter.add(obs, {}, actions, np.full(2, t == 0))
        assert meter.trust() == pytest.approx([e[t] for e in expected], abs=1e-5)


def test_an_episode_that_begins_forgets_the_steps_before_it(right: Calibration) -> None:
    model, (episode,) = drift_model(1.0), episodes(1, 5, gain=0.2)
    meter = TrustMeter(model, right)
    for t in range(15):
        obs = torch.from_numpy(np.stack([episode.obs["obs"][t]] * 2))
        actions = torch.from_numpy(np.stack([episode.actions[t]] * 2))
        meter.add(obs, {}, actions, np.array([t == 0, t in (0, 14)]))
    still_low, fresh = meter.trust()
    assert still_low < LEAST_TRUST
    assert fresh == pytest.approx(right.usual)


def test_a_run_is_calibrated_and_everything_shows_it(tiny_project: Path, python: Warm) -> None:
    folder = train_project(tiny_project, say=lambda line: None).folder
    command = f"worldflux trust {folder} --checkpoint"
    agent = worldflux.load_agent(folder)
    with pytest.raises(CapabilityError) as refused:
        _ = agent.trust
    assert command in str(refused.value.hint)
    assert command in str(evaluate_run(folder, episodes=2, video=False))
    assert "trust" not in [check.name for check in verify_quick(folder).checks]
    with pytest.raises(ConfigurationError, match="10 episodes"):
        trust_run(folder, episodes=10)

    words = ["-m", "worldflux", "trust", str(folder), "--episodes", "20", "--horizon", "4"]
    done = python.run(*words, "--json", cwd=tiny_project)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report["kinds"]) == {"reward", "value"}
    assert len(report["kinds"]["reward"]["radius"]) == 4

    checkpoint = open_run(folder).checkpoint
    assert {"trust.json", "trust.safetensors"} <= check(checkpoint)["files"].keys()
    saved = calibration_of(checkpoint)
    assert saved is not None
    assert "  observation  not measured" in str(saved)
    assert (saved.horizon, saved.seed) == (report["horizon"], report["seed"])
    agent = worldflux.load_agent(folder)
    observation = np.zeros(3, np.float32)
    for _ in range(3):
        agent.act(observation)
        assert 0.0 <= agent.trust <= 1.0
    evaluated = evaluate_run(folder, episodes=2, video=False)
    assert evaluated.trust is not None
    assert len(evaluated.trust) == 2
    assert "trusted for" in imagine_run(folder, horizon=6, episodes=2).trust
    checks = {found.name: found for found in verify_quick(folder).checks}
    assert checks["trust"].numbers["horizon"] == report["horizon"]
    assert checks["files"].status == "pass"

    (checkpoint / "trust.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"trust\.json"):
        open_run(folder)


def test_frames_that_are_not_trusted_have_a_red_border(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train_project(tiny_project, say=lambda line: None).folder
    trust_run(folder, episodes=20, horizon=2)
    frames: list[np.ndarray] = []

    class View:
        def show(self, frame: np.ndarray) -> None:
            frames.append(frame)

        def close(self) -> None:
            pass

    monkeypatch.setattr(Calibration, "trust", lambda self, scores: np.zeros(len(scores)))
    play_run(folder, lambda title, fps: View(), episodes=1)
    assert all(tuple(frame[0, 0]) == (220, 40, 40) for frame in frames)
    assert tuple(frames[0][250, 250]) != (220, 40, 40)
