"""Vector environments: what reaches the replay equals single environments stepped alone."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import (
    EnvironmentFault,
    EnvironmentSetupError,
    MissingDependencyError,
)


class Countdown(gymnasium.Env):
    """Episodes of given lengths; observes (episode, step), and every other one terminates."""

    def __init__(self, lengths: list[int], broken_step: int | None = None) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.lengths = lengths
        self.broken_step = broken_step
        self.episode = -1
        self.total = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode += 1
        self.step_in_episode = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> Any:
        assert self.action_space.contains(action.astype(np.float32)), action
        self.step_in_episode += 1
        self.total += 1
        length = self.lengths[self.episode % len(self.lengths)]
        ended = self.step_in_episode >= length
        terminated = ended and self.episode % 2 == 0
        reward = 100.0 * self.episode + self.step_in_episode
        if self.total == self.broken_step:
            reward = float("nan")
        return self._observe(), reward, terminated, ended and not terminated, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.episode, self.step_in_episode], np.float32)


def alone(lengths: list[int], rows: int) -> list[tuple[float, ...]]:
    """The rows that one environment stepped by hand would store."""
    env = Countdown(lengths)
    obs, _ = env.reset()
    stored = [(*obs, 0.0, 1.0, 0.0, 0.0)]
    while len(stored) < rows:
        obs, reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
        stored.append((*obs, reward, 0.0, float(terminated or truncated), float(terminated)))
        if terminated or truncated:
            obs, _ = env.reset()
            stored.append((*obs, 0.0, 1.0, 0.0, 0.0))
    return stored[:rows]


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=4),
    rows=st.integers(2, 30),
)
def test_transitions_equal_those_of_environments_stepped_alone(
    lengths: list[list[int]], rows: int
) -> None:
    count = len(lengths)
    envs = VectorEnvironment("Countdown", lambda i: Countdown(lengths[i]), count)
    buffer = ReplayBuffer(rows * count, (2,), 1, num_envs=count)
    collector = Collector(envs, buffer, seed=0)
    for _ in range(rows):
        collector.collect_random()
    stored = buffer.rows(0, rows)
    for i in range(count):
        columns = [stored["obs/"][:, i, 0], stored["obs/"][:, i, 1], stored["reward"][:, i]]
        columns += [stored[name][:, i] for name in ("is_first", "is_last", "is_terminal")]
        assert np.array_equal(np.stack(columns, 1).astype(float), np.array(alone(lengths[i], rows)))
    ended = stored["is_last"]
    assert (stored["action"][ended] == 0).all()  # no action leads out of an ended episode
    resets = int(stored["is_first"][1:].sum())
    pending = int(collector.buffer.steps_written * count - resets - int(ended[-1].sum()))
    assert collector.env_steps == pending


def test_episodes_are_reported_with_return_and_length() -> None:
    envs = VectorEnvironment("Countdown", lambda i: Countdown([3]), 1)
    collector = Collector(envs, ReplayBuffer(100, (2,), 1), seed=0)
    episodes = [episode for _ in range(9) for episode in collector.collect_random()]
    assert [(e.episode_return, e.length) for e in episodes] == [(6.0, 3), (306.0, 3)]


def test_actions_are_rescaled_to_the_environments_bounds() -> None:
    received = []

    class Recording(Countdown):
        def step(self, action: np.ndarray) -> Any:
            received.append(float(action[0]))
            return super().step(action)

    envs = VectorEnvironment("Recording", lambda i: Recording([50]), 1)
    envs.reset(0)
    for action in (-1.0, 0.5, 1.0, 3.0):
        envs.step(np.array([[action]]))
    assert received == [-2.0, 1.0, 2.0, 2.0]


def test_a_non_finite_reward_names_environment_and_step_and_stores_nothing() -> None:
    def make(index: int) -> Countdown:
        return Countdown([50], broken_step=4 if index == 1 else None)

    envs = VectorEnvironment("Countdown", make, 2)
    buffer = ReplayBuffer(100, (2,), 1, num_envs=2)
    collector = Collector(envs, buffer, seed=0)
    for _ in range(3):
        collector.collect_random()
    with pytest.raises(EnvironmentFault, match="non-finite reward in environment 1 at step 4"):
        collector.collect_random()
    assert buffer.steps_written == 3


def test_an_unknown_id_names_near_ones() -> None:
    with pytest.raises(EnvironmentSetupError) as caught:
        make_environment("Pendulun-v1")
    assert "Pendulum-v1" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("env_id", "extra"), [("ALE/Pong-v5", "atari"), ("dm_control/cartpole-balance-v0", "dmc")]
)
def test_a_missing_extra_is_named_with_its_install_command(env_id: str, extra: str) -> None:
    module = {"atari": "ale_py", "dmc": "dm_control"}[extra]
    try:
        __import__(module)
    except ImportError:
        with pytest.raises(MissingDependencyError) as caught:
            make_environment(env_id)
        assert caught.value.hint == f"pip install 'worldflux[{extra}]'"
        assert caught.value.exit_code == 4
    else:
        make_environment(env_id).close()


def test_a_dict_space_is_refused_with_the_way_out() -> None:
    class Named(Countdown):
        def __init__(self) -> None:
            super().__init__([3])
            self.observation_space = spaces.Dict({"a": spaces.Box(-1, 1, (2,), np.float32)})

    with pytest.raises(EnvironmentSetupError, match="Dict") as caught:
        VectorEnvironment("Named", lambda i: Named(), 1)
    assert "FlattenObservation" in (caught.value.hint or "")
