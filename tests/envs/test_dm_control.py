"""DeepMind Control tasks: the papers' protocol, step by step against the suite itself."""

from __future__ import annotations

import numpy as np
import pytest

from worldflux.envs.make import make_environment

# Not the suite itself: it chooses how to draw when it is imported, which make_environment prepares.
pytest.importorskip("dm_control", reason="dm_control is not installed")


def _flat(observation: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([np.ravel(entry) for entry in observation.values()]).astype(np.float32)


def test_two_control_steps_with_their_summed_reward_to_the_agent_step() -> None:
    env = make_environment("dm_control/walker-walk-v0")
    env.reset(seed=7)  # the suite seeds its first episode from the task's own stream
    own, _ = env.reset(seed=7)
    from dm_control import suite

    official = suite.load("walker", "walk", task_kwargs={"random": 7})
    np.testing.assert_array_equal(own, _flat(official.reset().observation))
    rng = np.random.default_rng(0)
    for step in range(1, 501):
        action = rng.uniform(-1.0, 1.0, 6).astype(np.float32)
        told = [official.step(action.astype(np.float64)) for _ in range(2)]
        own, reward, terminated, truncated, _ = env.step(action)
        np.testing.assert_array_equal(own, _flat(told[-1].observation))
        assert reward == pytest.approx(sum(one.reward for one in told), abs=1e-12)
        assert (terminated, truncated) == (False, step == 500)
    env.close()


def test_the_papers_short_name_of_ball_in_cup() -> None:
    env = make_environment("dm_control/cup-catch-v0")
    assert env.observation_space.shape == (8,)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 500
    env.close()
