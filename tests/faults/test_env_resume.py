"""Resume puts an environment back by playing its episode again, and sees one that cannot be."""

from __future__ import annotations

import importlib.util
import os
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import EnvironmentFault
from worldflux.training.checkpoints import read_state, write_state


class Moody(gymnasium.Env[Any, Any]):
    """Two steps with the same action tell something else; `what` says which of its answers does."""

    def __init__(self, what: str) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.what = what

    def _mood(self, name: str) -> float:
        return float(os.urandom(1)[0]) + os.urandom(1)[0] / 256 if name == self.what else 0.0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.array([self._mood("reset")], np.float32), {}

    def step(self, action: Any) -> Any:
        obs = np.array([self._mood("obs")], np.float32)
        return obs, self._mood("reward"), self._mood("end") > 250, False, {}


def collector(env_id: str, make: Any, obs_shape: tuple[int, ...], actions: int) -> Collector:
    envs = VectorEnvironment(env_id, make, 2)
    return Collector(envs, ReplayBuffer(2000, obs_shape, actions, num_envs=2), seed=3)


def needs(package: str) -> Any:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


@pytest.mark.parametrize(
    ("env_id", "obs_shape", "actions", "steps", "count"),
    [
        ("CartPole-v1", (4,), 2, 300, 100),
        ("Pendulum-v1", (3,), 1, 300, 100),
        ("worldflux/Catch-v0", (3, 64, 64), 3, 300, 100),
        # Slow ones are put back less often.
        pytest.param("dm_control/cartpole-balance-v0", (5,), 1, 150, 25, marks=needs("dm_control")),
        pytest.param("ALE/Pong-v5", (3, 64, 64), 6, 40, 6, marks=needs("ale_py")),
    ],
)
def test_environments_stand_where_they_stood_at_random_steps(
    env_id: str, obs_shape: tuple[int, ...], actions: int, steps: int, count: int, tmp_path: Path
) -> None:
    def make(index: int) -> gymnasium.Env:
        return make_environment(env_id)

    first, second = (collector(env_id, make, obs_shape, actions) for _ in range(2))
    second.buffer = first.buffer
    moments = set(np.random.default_rng(0).permutation(steps)[:count].tolist())
    exact = 0
    for step in range(steps):
        first.collect_random()
        if step in moments:
            write_state(tmp_path / "state.json", first.state_dict())
            second.load_state_dict(read_state(tmp_path / "state.json"))
            exact += second.restarted == [] and second.env_steps == first.env_steps
    assert exact == count
    rows = []
    written = first.buffer.steps_written
    state = first.state_dict()
    for one in (first, second):
        one.buffer.steps_written = written
        one.load_state_dict(state)
        for _ in range(30):
            one.collect_random()
        rows.append(one.buffer.rows(written, written + 30))
    told = rows[0].keys() - {"since_first"}  # the buffer's own count, which was not rewound here
    assert all(np.array_equal(rows[0][name], rows[1][name]) for name in told)


@pytest.mark.parametrize("what", ["obs", "reward", "reset"])
def test_an_environment_that_does_not_repeat_itself_is_seen(what: str) -> None:
    one = collector("Moody", lambda i: Moody(what if i == 1 else "never"), (1,), 1)
    seen = 0
    for _ in range(20):
        for _ in range(5):
            one.collect_random()
        one.load_state_dict(one.state_dict())
        seen += one.restarted == [1]
    assert seen == 20


def test_a_dropped_episode_ends_in_the_replay_and_a_new_one_begins() -> None:
    one = collector("Moody", lambda i: Moody("obs"), (1,), 1)
    for _ in range(8):
        one.collect_random()
    one.load_state_dict(one.state_dict())
    assert one.restarted == [0, 1]
    for _ in range(4):
        one.collect_random()
    assert one.buffer.rows(8, 9)["is_first"].all()
    sampled = one.buffer.sample(64, 4, within_episode=True)
    assert not sampled.firsts[:, 1:].any()


def test_an_episode_that_left_the_replay_is_restarted() -> None:
    envs = VectorEnvironment("Pendulum-v1", lambda i: make_environment("Pendulum-v1"), 1)
    one = Collector(envs, ReplayBuffer(20, (3,), 1), seed=0)
    for _ in range(50):
        one.collect_random()
    one.load_state_dict(one.state_dict())
    assert one.restarted == [0]


class Slow(gymnasium.Env[Any, Any]):
    """20 ms a step; writes each call down, and hangs where a file says so."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _written(self, letter: str) -> None:
        with (self.folder / "calls").open("a") as calls:
            calls.write(letter)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._written("r")
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self._written("s")
        self.count += 1
        hangs = (self.folder / "hangs").exists() and self.count == 7
        time.sleep(30.0 if hangs else 0.02)
        return np.full(1, self.count, np.float32), np.ones(1), False, False, {}


def slow_collector(folder: Path, **settings: Any) -> Collector:
    envs = VectorEnvironment("Slow", lambda _: Slow(folder), 1, step_timeout_s=0.5)
    one = Collector(envs, ReplayBuffer(2000, (1,), 1), seed=3, **settings)
    for _ in range(50):
        one.collect_random()
    (folder / "calls").unlink()
    return one


def test_an_episode_longer_than_the_time_out_of_a_step_is_played_again(tmp_path: Path) -> None:
    one = slow_collector(tmp_path)
    told: list[tuple[int, int]] = []
    one.report_replay = lambda done, total: told.append((done, total))
    one.load_state_dict(one.state_dict())
    assert one.restarted == []
    assert (tmp_path / "calls").read_text() == "rr" + 50 * "s"
    assert told[0] == (0, 50)
    assert all(before < after for before, after in pairwise(told))


def test_what_is_told_of_a_replay_may_end_it(tmp_path: Path) -> None:
    one = slow_collector(tmp_path)

    def interrupt(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    one.report_replay = interrupt
    with pytest.raises(KeyboardInterrupt):
        one.load_state_dict(one.state_dict())
    assert len((tmp_path / "calls").read_text()) < 10


def test_a_step_that_hangs_in_a_replay_names_the_way_out(tmp_path: Path) -> None:
    one = slow_collector(tmp_path)
    (tmp_path / "hangs").touch()
    with pytest.raises(EnvironmentFault, match="did not return within") as caught:
        one.load_state_dict(one.state_dict())
    assert "--set online_collection.env_resume" in (caught.value.hint or "")


def test_without_a_replay_no_old_action_is_taken(tmp_path: Path) -> None:
    one = slow_collector(tmp_path, replays=False)
    one.load_state_dict(one.state_dict())
    assert one.restarted == [0]
    assert (tmp_path / "calls").read_text() == "r"
    one.collect_random()
    assert one.buffer.rows(50, 51)["is_first"].all()
