"""Vector environments: what reaches the replay equals single environments stepped alone."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.actions import environment_actions
from worldflux.envs.faults import Failure
from worldflux.envs.make import make_environment
from worldflux.envs.observations import ObservationReader
from worldflux.envs.spec import spec_of
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import EnvironmentSetupError, MissingDependencyError


class Countdown(gymnasium.Env):
    """Episodes of given lengths; observes (episode, step), and every other one terminates.

    The reward tells episode, step and the action that led there.
    """

    def __init__(self, lengths: list[int]) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.lengths = lengths
        self.episode = -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode += 1
        self.step_in_episode = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> Any:
        assert self.action_space.contains(action.astype(np.float32)), action
        self.step_in_episode += 1
        length = self.lengths[self.episode % len(self.lengths)]
        ended = self.step_in_episode >= length
        terminated = ended and self.episode % 2 == 0
        reward = 100.0 * self.episode + self.step_in_episode + 0.1 * float(action[0])
        return self._observe(), reward, terminated, ended and not terminated, {}

    def _observe(self) -> np.ndarray:
        return np.array([self.episode, self.step_in_episode], np.float32)


Transition = tuple[float, ...]


def alone(lengths: list[list[int]], calls: list[str], pauses: bool) -> list[list[Transition]]:
    """The transitions that environments stepped by hand would have stored by now, one list each.

    A call is "step" or "reset". What a step tells is stored by the step after it. With `pauses`
    the call after an end begins the ended episodes anew and steps nothing.
    """
    envs = [Countdown(given) for given in lengths]
    stored: list[list[Transition]] = [[] for _ in envs]
    obs = [env.reset()[0] for env in envs]
    ended = [False] * len(envs)
    waiting: list[Transition | None] = [None] * len(envs)
    for call in calls:
        paused = pauses and any(ended)
        for i, env in enumerate(envs):
            if call == "step" and waiting[i] is not None:
                stored[i].append(waiting[i])
            waiting[i] = None
            if call == "reset" and ended[i] and pauses:
                env.reset()  # it had begun anew by itself, in the step that ended it
            if call == "reset" or ended[i]:
                obs[i], ended[i] = env.reset()[0], False
            elif not paused:
                before = obs[i]
                obs[i], reward, terminated, truncated, _ = env.step(np.zeros(1, np.float32))
                ended[i] = terminated or truncated
                waiting[i] = (*before, *obs[i], reward, float(ended[i]), float(terminated))
    return stored


def stored_transitions(buffer: ReplayBuffer, index: int) -> list[Transition]:
    """The transitions of one stream, each reward without the part that its action made."""
    rows = {name: column[:, index] for name, column in buffer.rows(0, buffer.steps_written).items()}
    found = []
    for t in range(buffer.steps_written - 1):
        if not rows["is_first"][t + 1]:
            assert not rows["is_last"][t]
            reward = float(rows["reward"][t + 1]) - 0.2 * float(rows["action"][t, 0])
            flags = (float(rows["is_last"][t + 1]), float(rows["is_terminal"][t + 1]))
            found.append((*rows["obs/"][t], *rows["obs/"][t + 1], round(reward, 2), *flags))
    return found


@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 6), min_size=1, max_size=4), min_size=1, max_size=3),
    calls=st.lists(st.sampled_from(["step"] * 9 + ["reset"]), min_size=2, max_size=30),
    form=st.sampled_from(["sync", "async", "native NEXT_STEP", "native SAME_STEP"]),
)
@example(lengths=[[1]], calls=["step", "reset", "step", "step"], form="native SAME_STEP")
def test_transitions_equal_those_of_environments_stepped_alone(
    lengths: list[list[int]], calls: list[str], form: str
) -> None:
    count = len(lengths)
    mode, _, autoreset = form.partition(" ")

    def native(_: int) -> SyncVectorEnv:
        makers = [lambda given=given: Countdown(given) for given in lengths]
        return SyncVectorEnv(makers, autoreset_mode=AutoresetMode[autoreset])

    make: Any = native if autoreset else lambda i: Countdown(lengths[i])
    envs = VectorEnvironment("Countdown", make, count, mode=mode)  # type: ignore[arg-type]
    buffer = ReplayBuffer(len(calls) * count * 2, (2,), 1, num_envs=count)
    collector = Collector(envs, buffer, seed=0)
    for call in ["reset", *calls]:
        if call == "reset":  # a run that begins anew on the same replay
            collector = Collector(envs, buffer, seed=0)
            collector._current()
        else:
            collector.collect_random()
    envs.close()
    expected = alone(lengths, calls, pauses=autoreset == "SAME_STEP")
    assert [stored_transitions(buffer, i) for i in range(count)] == expected
    ended = buffer.rows(0, buffer.steps_written)
    assert (ended["action"][ended["is_last"]] == 0).all()  # no action leads out of an episode


def test_episodes_are_reported_with_return_and_length() -> None:
    envs = VectorEnvironment("Countdown", lambda i: Countdown([3]), 1)
    collector = Collector(envs, ReplayBuffer(100, (2,), 1), seed=0)
    episodes = [episode for _ in range(9) for episode in collector.collect_random()]
    assert [e.length for e in episodes] == [3, 3]
    assert [round(e.episode_return / 100) for e in episodes] == [0, 3]


def test_actions_are_rescaled_to_the_environments_bounds() -> None:
    class Echo(Countdown):
        def step(self, action: np.ndarray) -> Any:
            _, *rest = super().step(action)
            return (np.repeat(action, 2), *rest)

    envs = VectorEnvironment("Echo", lambda i: Echo([50]), 1)
    envs.reset(0)
    given = (-1.0, 0.5, 1.0, 3.0)
    received = [float(envs.step(np.array([[a]])).obs[0, 0]) for a in given]  # type: ignore[call-overload]
    envs.close()
    assert received == [-2.0, 1.0, 2.0, 2.0]


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


@pytest.mark.parametrize(
    ("observation", "action", "said"),
    [
        (spaces.Dict({}), spaces.Discrete(2), "empty Dict"),
        (spaces.Box(0, 999, (4, 8, 8), np.int64), spaces.Discrete(2), "(4, 8, 8)"),
        (spaces.Discrete(2), spaces.Box(-np.inf, np.inf, (2,)), "without finite bounds"),
    ],
)
def test_a_space_without_contract_is_refused_with_the_way_out(
    observation: spaces.Space, action: spaces.Space, said: str
) -> None:
    with pytest.raises(EnvironmentSetupError) as caught:
        spec_of("My-v0", observation, action, None)
    assert "My-v0" in caught.value.message
    assert said in caught.value.message


def test_every_flat_space_has_one_encoding() -> None:
    space = spaces.Dict(
        {
            "camera": spaces.Box(0, 255, (16, 24, 3), np.uint8),
            "depth": spaces.Box(0.0, 1.0, (16, 24, 1), np.float32),
            "gray": spaces.Box(0, 255, (16, 24), np.uint8),
            "stack": spaces.Box(0, 255, (9, 16, 24), np.uint8),
            "joints": spaces.Box(-1.0, 1.0, (2, 2), np.float64),
            "mode": spaces.Discrete(3, start=-1),
            "gears": spaces.MultiDiscrete([2, 3], start=[0, 5]),
            "lamps": spaces.MultiBinary(3),
        }
    )
    obs = {
        "camera": np.arange(16 * 24 * 3).reshape(16, 24, 3).astype(np.uint8),
        "depth": np.full((16, 24, 1), 0.5, np.float32),
        "gray": np.full((16, 24), 7, np.uint8),
        "stack": np.full((9, 16, 24), 8, np.uint8),
        "joints": np.array([[0.1, 0.2], [0.3, 0.4]]),
        "mode": 1,
        "gears": np.array([1, 5]),
        "lamps": np.array([0, 1, 1], np.int8),
    }
    told = ObservationReader("My-v0", space).read_one(obs)
    images = {"camera": (3, 16, 24), "depth": (1, 16, 24), "gray": (1, 16, 24)}
    for name, shape in {**images, "stack": (9, 16, 24)}.items():
        assert (told[name].shape, told[name].dtype) == ((1, *shape), np.uint8)
    assert np.array_equal(told["camera"][0].transpose(1, 2, 0), obs["camera"])
    assert (told["depth"] == 128).all()
    for name, values in {
        "joints": [0.1, 0.2, 0.3, 0.4],
        "mode": [0, 0, 1],
        "gears": [0, 1, 1, 0, 0],
        "lamps": [0, 1, 1],
    }.items():
        assert told[name].dtype == np.float32
        assert told[name][0].tolist() == pytest.approx(values)


@pytest.mark.parametrize(
    ("space", "value", "said"),
    [
        (spaces.Box(-1.0, 1.0, (2,)), [0.0, 1.5], "outside its declared bounds: 1.5 at [1]"),
        (spaces.Discrete(3), 3, "outside Discrete(3): 3"),
        (spaces.MultiBinary(2), [0, 2], "neither 0 nor 1: 2 at [1]"),
        (spaces.Box(-1.0, 1.0, (2,)), ["a", "b"], "has dtype <U1"),
        (spaces.Box(-1.0, 1.0, (2,)), [1 + 1e-6, -1.0], None),  # float32 rounding is no fault
    ],
)
def test_values_are_held_to_their_space(space: spaces.Space, value: Any, said: str | None) -> None:
    reader = ObservationReader("My-v0", space)
    if said is None:
        reader.read_one(value)
        return
    with pytest.raises(Failure) as caught:
        reader.read_one(value)
    assert said in caught.value.problem


def test_several_discrete_actions_stand_side_by_side() -> None:
    space = spaces.MultiDiscrete([3, 2], start=[0, 10])
    spec = spec_of("My-v0", spaces.Discrete(2), space, None)
    assert (spec.action_dim, spec.action_type, spec.action_parts) == (5, "discrete", (3, 2))
    rows = np.array([[0, 0, 1, 1, 0], [1, 0, 0, 0, 1]], np.float32)
    assert environment_actions(space, rows).tolist() == [[2, 10], [0, 11]]
    drawn = spec.random_actions(np.random.default_rng(0), 50)
    assert (drawn[:, :3].sum(1) == 1).all()
    assert (drawn[:, 3:].sum(1) == 1).all()
    assert drawn.any(0).all()
