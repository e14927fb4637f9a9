"""An agent in the user's own loop acts as it is evaluated, in the values of its environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import worldflux
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
