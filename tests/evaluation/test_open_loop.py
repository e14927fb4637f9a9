"""Open-loop prediction: exact for an exact model, blind behind its context, honest at the ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from worldflux.core.outputs import ModelOutput
from worldflux.core.state import State
from worldflux.core.world_model import WorldModel
from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.evaluation.episodes import RecordedEpisode, play_episodes
from worldflux.evaluation.imagination import _figure, _pixels, imagine, write_imagination
from worldflux.evaluation.open_loop import NO_DECODER, imagine_scenes, model_skill
from worldflux.factory import create_world_model


class Addition:
    """All parts of a model of x' = x + a, with reward sum(a) and value sum(x)."""

    def encode(self, observations: dict[str, Any], deterministic: bool = False) -> State:
        return State({"latent": observations["obs"]})

    def condition(self, state: State, action: Any, conditions: Any) -> Any:
        return action

    def transition(self, state: State, conditioned: Any, deterministic: bool = False) -> State:
        moved = state["latent"] + conditioned
        return State({"latent": moved, "reward": conditioned.sum(-1)})

    def decode(self, state: State, conditions: Any) -> ModelOutput:
        found = {"obs": state["latent"], "value": state["latent"].sum(-1)}
        reward = state.get("reward")
        return ModelOutput(found if reward is None else {**found, "reward": reward})


def addition_model(use_decoder: bool = True) -> WorldModel:
    model = create_world_model(
        "tdmpc2:ci", obs_shape=(2,), action_dim=2, use_decoder=use_decoder, horizon=2
    )
    for slot in ("observation_encoder", "action_conditioner", "dynamics_model", "decoder_module"):
        model.replace_component(slot, Addition())
    return model


def addition_episode(length: int, seed: int = 0) -> RecordedEpisode:
    actions = np.random.default_rng(seed).uniform(-1, 1, (length, 2)).astype(np.float32)
    places = np.concatenate([np.zeros((1, 2), np.float32), actions.cumsum(0)])
    return RecordedEpisode({"obs": places}, actions, actions.sum(1))


def catch_model(**fields: Any) -> WorldModel:
    torch.manual_seed(0)
    size = {"deter_dim": 16, "stoch_discrete": 2, "stoch_classes": 4, "hidden_dim": 8}
    return create_world_model(
        "dreamer:ci",
        obs_shape=(3, 64, 64),
        action_dim=3,
        action_type="discrete",
        cnn_depth=4,
        **size,
        **fields,
    )


def catch_envs(count: int) -> VectorEnvironment:
    env_id = "worldflux/Catch-v0"
    return VectorEnvironment(env_id, lambda index: make_environment(env_id), count)


def test_an_exact_model_has_no_error_at_any_horizon() -> None:
    skill = model_skill(addition_model(), [addition_episode(n, n) for n in (3, 12, 20)], 10)
    assert skill.horizon == 10
    assert skill.windows == 3 + 12 + 20
    assert set(skill.errors) == {"observation", "reward", "value"}
    for error in skill.errors.values():
        assert error.model == pytest.approx(np.zeros(10), abs=1e-5)
        assert (error.persistence > 0.1).all()
        assert (error.mean > 0.1).all()


def test_persistence_and_mean_are_what_they_say() -> None:
    actions = np.full((4, 2), 0.5, np.float32)
    places = np.arange(5, dtype=np.float32)[:, None].repeat(2, 1) / 2
    rewards = np.array([1.0, 2.0, 3.0, 6.0], np.float32)
    episode = RecordedEpisode({"obs": places}, actions, rewards)
    skill = model_skill(addition_model(), [episode], 4)
    assert skill.errors["observation"] is not None
    assert skill.errors["reward"] is not None
    # One step moves 0.5; places 0 to 2 have the standard deviation 0.5 * sqrt(2).
    steps = np.arange(1, 5)
    assert skill.errors["observation"].persistence == pytest.approx(steps / np.sqrt(2), rel=1e-5)
    # Rewards 0 (none), 1, 2, 3 were seen last when 1, 2, 3, 6 came.
    assert skill.errors["reward"].persistence[0] == pytest.approx((1 + 1 + 1 + 3) / 4)
    # The mean reward is 3; the model says 1 each time.
    assert skill.errors["reward"].mean[0] == pytest.approx((2 + 1 + 0 + 3) / 4)
    assert skill.errors["reward"].model[0] == pytest.approx((0 + 1 + 2 + 5) / 4)


def test_the_model_is_blind_behind_its_context() -> None:
    episode = addition_episode(30)
    blinded = {"obs": episode.obs["obs"].copy()}
    blinded["obs"][5:] = 1e6
    other = RecordedEpisode(blinded, episode.actions, episode.rewards)
    seen, unseen = (imagine_scenes(addition_model(), [e], 15)[0] for e in (episode, other))
    assert (seen.context, seen.horizon) == (5, 15)
    assert np.array_equal(seen.imagined["obs/obs"], unseen.imagined["obs/obs"])
    assert np.allclose(seen.imagined["obs/obs"], seen.true["obs/obs"], atol=1e-5)
    assert not np.allclose(unseen.imagined["obs/obs"], unseen.true["obs/obs"])


def test_a_short_episode_shortens_context_and_horizon() -> None:
    episodes = [addition_episode(length) for length in (7, 3, 6, 5)]
    scenes = imagine_scenes(addition_model(), episodes, 15)
    # Together they show the fifteen steps that none of them has.
    assert [scene.horizon for scene in scenes] == [7, 6, 5]
    assert [(scene.context, scene.length) for scene in scenes] == [(1, 8), (1, 7), (1, 6)]


def test_without_a_decoder_reward_and_value_are_left_and_it_is_said() -> None:
    episodes = [addition_episode(9)]
    skill = model_skill(addition_model(use_decoder=False), episodes, 5)
    assert set(skill.errors) == {"reward", "value"}
    assert NO_DECODER in str(skill)
    assert not imagine_scenes(addition_model(use_decoder=False), episodes, 5)[0].decodes
    assert NO_DECODER not in str(model_skill(addition_model(), episodes, 5))


def test_a_recurrent_family_takes_the_past_along() -> None:
    """`observe` says what the acting policy knew at each step."""
    model = catch_model()
    torch.manual_seed(1)
    obs = torch.randint(0, 256, (4, 2, 3, 64, 64), dtype=torch.uint8)
    carry, actions, known = model.initial_carry(2), [], []
    for step, frame in enumerate(obs):
        chosen, carry = model.policy(frame, carry, torch.full((2,), step == 0), explore=False)
        actions.append(chosen)
        known.append(carry["deter"])
    with torch.no_grad():
        states = model.observe(obs, torch.stack(actions[:-1]))
        first = model.encode(obs[0], deterministic=True)
    assert len(states) == 4
    for state, deter in zip(states, known, strict=True):
        assert torch.allclose(state["deter"], deter, atol=1e-6)
    assert torch.equal(states[0]["deter"], first["deter"])
    assert not torch.allclose(states[3]["deter"], model.encode(obs[3], True)["deter"], atol=1e-3)


def test_recorded_episodes_are_those_that_were_played() -> None:
    envs = catch_envs(3)
    played = play_episodes(None, envs, 6, seed=5, record_episodes=2, record_steps=100)
    envs.close()
    assert len(played.recorded) == 2
    for index, episode in enumerate(played.recorded):
        assert len(episode) == played.lengths[index] == 7
        assert episode.obs["obs"].shape == (8, 3, 64, 64)
        assert episode.rewards.sum() == played.returns[index]
        # The ball is one row lower in each observation; the next episode never shows.
        rows = [np.argwhere(frame[0] == 255)[0][0] // 8 for frame in episode.obs["obs"]]
        assert rows == list(range(8))
    cut = play_episodes(None, envs := catch_envs(1), 1, seed=5, record_episodes=1, record_steps=3)
    envs.close()
    assert len(cut.recorded[0]) == 3


@pytest.mark.parametrize("kind", ["image", "vector"])
def test_an_imagination_is_a_picture_a_film_and_strict_numbers(tmp_path: Path, kind: str) -> None:
    if kind == "image":
        envs = catch_envs(2)
        model = catch_model()
        episodes = play_episodes(model, envs, 2, seed=1, record_episodes=2).recorded
        envs.close()
    else:
        model, episodes = addition_model(), [addition_episode(12)]
    before = torch.random.get_rng_state()
    imagination = imagine(model, episodes, 6)
    assert torch.equal(torch.random.get_rng_state(), before)
    files = write_imagination(imagination, tmp_path, "step-000000010", step=10)
    numbers = json.loads(files["numbers"].read_text(), parse_constant=pytest.fail)
    assert numbers["step"] == 10
    assert numbers["horizon"] == 6
    assert len(numbers["errors"]["observation"]["model"]) == 6
    picture = Image.open(files["picture"])
    assert picture.width >= 1000
    assert len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert files["picture"].stat().st_size < 300_000
    assert files["video"].stat().st_size > 1000
    assert not list(tmp_path.glob(".*"))


def test_images_that_no_decoder_draws_are_not_shown_black(tmp_path: Path) -> None:
    """They were: an "imagined" row of black images, and the true ones again as the difference."""
    episodes = play_episodes(None, envs := catch_envs(1), 1, seed=1, record_episodes=1).recorded
    envs.close()
    imagination = imagine(catch_model(representation="barlow"), episodes, 6)
    scenes, skill = imagination.scenes, imagination.skill
    figure, _ = _figure(scenes, skill, "worldflux/Catch-v0, r2dreamer:laptop, seed 42", {})
    shown = _pixels(figure)
    rows = figure.axes[0].get_yticklabels()
    assert [label.get_text() for label in rows] == ["true"]
    title = figure.texts[0].get_window_extent()
    assert title.x0 >= 0
    assert title.x1 <= shown.shape[1]  # its advice can be read
    files = write_imagination(imagination, tmp_path, "seen")
    assert files["video"].stat().st_size > 1000
