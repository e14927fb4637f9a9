"""An agent in the user's own loop acts as it is evaluated, in the values of its environment."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import worldflux
from worldflux.errors import (
    CapabilityError,
    ConfigurationError,
    EnvironmentFault,
    EnvironmentSetupError,
    ModelNotFoundError,
    ShapeMismatchError,
    StateError,
)
from worldflux.progress import SILENT
from worldflux.project.environments import environment_maker
from worldflux.project.open_run import OpenRun, open_run

SEED = 123
STEPS = 30


def environment(run: OpenRun) -> Any:
    """The environment that a run learned in, in this process."""
    described = run.manifest["environment"]
    env_id = described.get("named", described["id"])
    return environment_maker(run.root, env_id, described["kwargs"])(None)


@pytest.mark.parametrize("name", ["pendulum", "cartpole", "walker", "catch"])
def test_an_episode_is_the_one_that_eval_plays(projects: dict[str, Path], name: str) -> None:
    run = open_run(projects[name] / "outputs")
    envs = run.environments(1)
    played = run.play(envs, 1, SEED, SILENT, record_episodes=1, record_steps=STEPS)
    envs.close()
    agent, env = worldflux.load_agent(projects[name], seed=SEED), environment(run)
    expected = list(agent.adapter.actions(played.recorded[0].actions))
    actions, (observation, _) = [], env.reset(seed=SEED)
    for _ in expected:
        actions.append(agent.act(observation))
        assert actions[-1] in env.action_space
        assert agent.value() == agent.value()  # looking ahead changes nothing
        observation, *_ = env.step(actions[-1])
    np.testing.assert_array_equal(actions, expected)


def test_a_batch_acts_as_its_rows(projects: dict[str, Path]) -> None:
    run = open_run(projects["walker"] / "outputs")
    envs = gymnasium.vector.SyncVectorEnv([lambda: environment(run) for _ in range(3)])
    batched = worldflux.load_agent(projects["walker"])
    single = [worldflux.load_agent(projects["walker"]) for _ in range(3)]
    observations, _ = envs.reset(seed=[1, 2, 3])
    first = np.ones(3, bool)
    for step in range(5):
        first[1] |= step == 3  # only one of them begins again
        actions = batched.act(observations, is_first=first)
        rows = list(gymnasium.vector.utils.iterate(envs.observation_space, observations))
        for i, agent in enumerate(single):
            assert agent.act(rows[i], is_first=first[i]).tolist() == actions[i].tolist()
            assert batched.value()[i] == pytest.approx(agent.value(), abs=1e-5)
        observations, *_ = envs.step(actions)
        first[:] = False
    with pytest.raises(ShapeMismatchError, match="continues one of 3"):
        batched.act(observations, is_first=[False, False])


def test_memory_lasts_until_reset(projects: dict[str, Path]) -> None:
    agent = worldflux.load_agent(projects["walker"])
    env = environment(open_run(projects["walker"] / "outputs"))
    observation, _ = env.reset(seed=0)
    agent.act(observation)
    begun = agent.value()
    later, *_ = env.step(np.array([1, 1]))
    agent.act(later)
    remembered = agent.value()
    agent.act(later, is_first=True)
    assert agent.value() != remembered
    agent.reset()
    agent.act(observation)
    assert agent.value() == begun


def test_what_is_no_observation_is_refused_and_changes_nothing(projects: dict[str, Path]) -> None:
    agent, again = (worldflux.load_agent(projects["pendulum"], seed=1) for _ in range(2))
    good = np.array([1.0, 0.0, 0.5], np.float32)
    for bad, problem in (
        (np.array([np.nan, 0, 0], np.float32), "is not finite: nan at"),
        (np.array([9.0, 0, 0], np.float32), "outside its declared bounds"),
        (np.zeros(4, np.float32), "has shape"),
        ({"obs": good}, "has"),
    ):
        with pytest.raises(EnvironmentFault, match=f"Pendulum-v1: .*{problem}"):
            agent.act(bad)
    assert agent.act(good) == again.act(good)
    assert agent.act(good) == again.act(good)


def test_a_policy_is_the_planner_or_the_prior(projects: dict[str, Path]) -> None:
    observation = np.array([1.0, 0.0, 0.5], np.float32)
    agent = worldflux.load_agent(projects["pendulum"])
    prior = agent.act(observation, policy="prior")
    assert prior == agent.act(observation, policy="prior")  # its mean
    assert prior != agent.act(observation, policy="prior", sample=True)
    assert agent.act(observation, policy="plan") != prior
    cart = worldflux.load_agent(projects["cartpole"])
    with pytest.raises(CapabilityError, match="has no policy 'plan'; it has prior"):
        cart.act(np.zeros(4, np.float32), policy="plan")
    assert type(cart.act(np.zeros(4, np.float32), policy="prior")) is int


def test_a_dream_has_a_step_for_each_action(projects: dict[str, Path]) -> None:
    agent = worldflux.load_agent(projects["catch"])
    with pytest.raises(StateError, match="no observation yet"):
        agent.imagine([0])
    agent.act(np.zeros(agent.observation_space.shape, np.uint8))
    dream = agent.imagine([0, 1, 2])
    assert dream.rewards is not None
    assert dream.values is not None
    assert (dream.rewards.shape, dream.values.shape) == ((3, 1), (4, 1))
    assert dream.values[0, 0] == agent.value()
    assert dream.observations["obs"].shape == (4, 1, 3, 64, 64)
    with pytest.raises(EnvironmentFault, match="action is outside"):
        agent.imagine([0, 7])


def test_agents_act_in_threads_and_in_a_running_loop(projects: dict[str, Path]) -> None:
    observation = np.array([1.0, 0.0, 0.5], np.float32)

    def acted(seed: int) -> list[float]:
        agent = worldflux.load_agent(projects["pendulum"], seed=seed)
        return [float(agent.act(observation)[0]) for _ in range(5)]

    async def loop() -> tuple[list[list[float]], list[float]]:
        work = (asyncio.to_thread(acted, seed) for seed in (1, 2))
        return list(await asyncio.gather(*work)), acted(1)

    before = torch.get_rng_state()
    threads, inside = asyncio.run(loop())
    assert threads == [acted(1), acted(2)]
    assert inside == threads[0] != threads[1]
    assert torch.equal(torch.get_rng_state(), before)


# ------------------------------------------------------------------ where agents come from


def test_a_checkpoint_and_a_saved_model_act_too(projects: dict[str, Path], tmp_path: Path) -> None:
    run = projects["pendulum"] / "outputs"
    observation = np.array([1.0, 0.0, 0.5], np.float32)
    last = worldflux.load_agent(run / "checkpoints" / "step-000000002")
    assert last.folder == run
    assert last.act(observation) == worldflux.load_agent(run, checkpoint="2").act(observation)
    first = worldflux.load_agent(run, checkpoint="1")
    assert first.act(observation, policy="prior") != last.act(observation, policy="prior")
    last.model.save_pretrained(tmp_path / "saved")
    alone = worldflux.load_agent(tmp_path / "saved")
    assert alone.act(observation)[0] <= 1.0  # knows nothing of the bounds of Pendulum
    own = worldflux.load_agent(tmp_path / "saved", env=gymnasium.make("Pendulum-v1"))
    last.reset()
    fresh = worldflux.load_agent(run, checkpoint="2")
    assert own.act(observation) == fresh.act(observation)
    for wrong in ("CartPole-v1", "MountainCarContinuous-v0"):
        with pytest.raises(EnvironmentSetupError, match="the agent learned with"):
            worldflux.load_agent(run, env=gymnasium.make(wrong))
    with pytest.raises(ModelNotFoundError):
        worldflux.load_agent(tmp_path)


def test_a_run_of_an_earlier_version_asks_its_environment(projects: dict[str, Path]) -> None:
    run = open_run(projects["walker"] / "outputs")
    recorded = run.spaces()
    del run.manifest["spaces"]
    assert run.spaces() == recorded


def test_images_are_resized_and_stacked_as_the_run_did(projects: dict[str, Path]) -> None:
    run = open_run(projects["stacked"] / "outputs")
    env, raw = environment(run), gymnasium.make("worldflux/Catch-v0")
    ready = worldflux.load_agent(projects["stacked"])
    agent = worldflux.load_agent(projects["stacked"], env=raw)
    observation, _ = env.reset(seed=3)
    image, _ = raw.reset(seed=3)
    for step in range(4):
        action = agent.act(image, is_first=step == 0)
        assert agent.adapter.observation_space == env.observation_space
        assert action == ready.act(observation)
        assert agent.value() == ready.value()
        observation, *_ = env.step(action)
        image, *_ = raw.step(action)
    with pytest.raises(EnvironmentFault, match="has shape"):
        agent.act(observation)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"env": "Pendulum-v1"}, "env is a str, without observation_space"),
        ({"env": lambda: None}, "env is a function"),
        ({"seed": -1}, "seed = -1"),
        ({"seed": 2**32}, r"seed = 4294967296 .* 0 to 2\*\*32 - 1"),
        ({"seed": 1.5}, "seed = 1.5"),
    ],
)
def test_what_an_agent_cannot_be_made_of_is_said(
    given: dict[str, Any], message: str, projects: dict[str, Path]
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        worldflux.load_agent(projects["pendulum"], **given)


@pytest.mark.parametrize("is_first", ["no", 2.5, [], [True, 3]])
def test_flags_that_are_none_are_refused(is_first: Any, projects: dict[str, Path]) -> None:
    last = open_run(projects["pendulum"] / "outputs", "last").manifest["global_step"]
    agent = worldflux.load_agent(projects["pendulum"], checkpoint=last)
    with pytest.raises(ShapeMismatchError, match="is_first"):
        agent.act(np.zeros((len(np.atleast_1d(is_first)), 3), np.float32), is_first=is_first)


def test_a_batch_goes_on_only_with_its_flags(projects: dict[str, Path]) -> None:
    agent = worldflux.load_agent(projects["pendulum"])
    batch = np.zeros((2, 3), np.float32)
    agent.act(batch, is_first=[True, True])
    with pytest.raises(ShapeMismatchError, match=r"(?s)a batch of 2 .*is_first=\[False, False\]"):
        agent.act(batch)
    assert agent.act(batch, is_first=[False, False]).shape == (2, 1)
