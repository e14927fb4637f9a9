"""The Atari protocol frame by frame, against a sequence worked out by hand."""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.envs.atari import AtariProtocol
from worldflux.envs.make import make_environment, make_native
from worldflux.envs.observations import ObservationReader
from worldflux.errors import EnvironmentSetupError


class Emulator(gymnasium.Env):
    """Frame t is t everywhere, and 255 at pixel (0, t); reward t; a life is lost at frame 9."""

    def __init__(self, length: int = 40) -> None:
        self.observation_space = spaces.Box(0, 255, (4, 64, 3), np.uint8)
        self.action_space = spaces.Discrete(3)
        self.length = length
        self.actions: list[int] = []
        self.games = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t, self.games = 0, self.games + 1
        return self.frame(), {"lives": 3}

    def step(self, action: Any) -> Any:
        self.t += 1
        self.actions.append(int(action))
        over = self.t >= self.length
        return self.frame(), float(self.t), over, False, {"lives": 3 if self.t < 9 else 2}

    def frame(self) -> np.ndarray:
        frame = np.full((4, 64, 3), self.t, np.uint8)
        frame[0, self.t % 64] = 255
        return frame


def marked(obs: np.ndarray) -> list[int]:
    """The columns of the first row that are lit."""
    return np.flatnonzero(obs[0, :, 0] == 255).tolist()


def test_four_frames_an_action_and_the_maximum_of_the_last_two() -> None:
    emulator = Emulator()
    env = AtariProtocol(emulator, (4, 64), noop_max=0)
    obs, _ = env.reset(seed=0)
    assert marked(obs) == [0]
    told = [env.step(action) for action in (1, 2, 1)]
    # Frames 1-4, 5-8, 9-12; the last two of each are seen, the later one is brighter.
    assert [marked(obs) for obs, *_ in told] == [[3, 4], [7, 8], [11, 12]]
    assert [int(obs[1, 0, 0]) for obs, *_ in told] == [4, 8, 12]
    assert [reward for _, reward, *_ in told] == [1 + 2 + 3 + 4, 5 + 6 + 7 + 8, 9 + 10 + 11 + 12]
    assert not any(terminated or truncated for _, _, terminated, truncated, _ in told)
    assert emulator.actions == [1] * 4 + [2] * 4 + [1] * 4


def test_the_end_of_the_game_breaks_off_an_action() -> None:
    env = AtariProtocol(Emulator(length=6), (4, 64), noop_max=0)
    env.reset(seed=0)
    env.step(1)
    obs, reward, terminated, truncated, _ = env.step(1)
    assert (marked(obs), reward, terminated, truncated) == ([5, 6], 11.0, True, False)
    assert marked(env.reset()[0]) == [0]


@pytest.mark.parametrize(("asked", "ends"), [(False, 40), (True, 9)])
def test_a_lost_life_ends_the_episode_only_where_it_is_asked_for(asked: bool, ends: int) -> None:
    emulator = Emulator()
    env = AtariProtocol(emulator, (4, 64), noop_max=0, terminal_on_life_loss=asked)
    env.reset(seed=0)
    while not env.step(0)[2]:
        pass
    assert emulator.t == ends
    env.reset()  # after a lost life the same game goes on
    assert emulator.games == (1 if asked else 2)


def test_an_episode_begins_with_idle_frames_drawn_from_the_seed() -> None:
    def starts(seeds: range) -> list[int]:
        emulator = Emulator()
        env = AtariProtocol(emulator, (4, 64), noop_max=5)
        found = []
        for seed in seeds:
            emulator.actions.clear()
            env.reset(seed=seed)
            assert set(emulator.actions) == {0}
            found.append(len(emulator.actions))
        return found

    assert starts(range(40)) == starts(range(40))
    assert set(starts(range(40))) == {1, 2, 3, 4, 5}


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale_py is not installed")
def test_a_joystick_is_at_rest_in_idle_frames() -> None:
    env = make_environment("ALE/Pong-v5", continuous=True)
    env.reset(seed=0)
    env.action_space.seed(0)
    assert env.step(env.action_space.sample())[0].shape == (64, 64, 3)


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale_py is not installed")
def test_pong_equals_its_emulator_stepped_by_hand() -> None:
    """No sticky actions, no idle frames: the maximum of frames 3 and 4, resized by area."""
    env = make_environment("ALE/Pong-v5", repeat_action_probability=0.0, noop_max=0)
    by_hand = gymnasium.make("ALE/Pong-v5", frameskip=1, repeat_action_probability=0.0)
    env.reset(seed=3)
    by_hand.reset(seed=3)
    for action in (0, 2, 2, 3, 3, 3, 0, 5):
        obs, reward, *_ = env.step(np.int64(action))
        told = [by_hand.step(np.int64(action)) for _ in range(4)]
        assert reward == sum(float(one[1]) for one in told)
        seen = np.maximum(told[2][0], told[3][0]).astype(np.float64)
        # 210 rows to 64: every new row is 3 9/32 old ones; the first is rows 0, 1, 2 and 9/32 of 3.
        row = (seen[:3].sum(0) + seen[3] * 9 / 32) * 64 / 210
        first = (row[:2].sum(0) + row[2] * 0.5) / 2.5  # 160 columns to 64: two and a half
        assert np.abs(obs[0, 0] - first).max() <= 0.51
    assert obs.shape == (64, 64, 3)
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == 0.0  # type: ignore[attr-defined]
    sticky = make_environment("ALE/Pong-v5")
    assert sticky.unwrapped.ale.getFloat("repeat_action_probability") == 0.25  # type: ignore[attr-defined]


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale_py is not installed")
@pytest.mark.parametrize(("noop_max", "sticky", "equal"), [(0, 0.0, True), (30, 0.25, False)])
def test_the_native_form_plays_the_same_game_only_without_chance(
    noop_max: int, sticky: float, equal: bool
) -> None:
    """Why it is refused: should the second case ever be equal, it need not be."""
    from ale_py.vector_env import AtariVectorEnv

    with pytest.raises(EnvironmentSetupError, match="its own random streams"):
        make_native("ALE/Pong-v5", 1)
    native = AtariVectorEnv(
        "pong",
        1,
        repeat_action_probability=sticky,
        img_height=64,
        img_width=64,
        grayscale=False,
        stack_num=1,
        noop_max=noop_max,
        reward_clipping=False,
        use_fire_reset=False,
    )
    ours = make_environment("ALE/Pong-v5", noop_max=noop_max, repeat_action_probability=sticky)
    frames = [(native.reset(seed=3)[0], ours.reset(seed=3)[0])]
    for action in np.random.default_rng(0).integers(0, 6, 30):
        frames.append((native.step(action[None])[0], ours.step(action)[0]))
    assert all(np.array_equal(theirs[0, 0], own) for theirs, own in frames) == equal
    native.close()
    ours.close()


@pytest.mark.skipif(importlib.util.find_spec("ale_py") is None, reason="ale_py is not installed")
def test_grey_frames_are_stacked_and_the_memory_is_a_vector() -> None:
    grey = make_environment("ALE/Pong-v5", obs_type="grayscale", image_size=84, frame_stack=4)
    assert ObservationReader("Pong", grey.observation_space).shapes == {"": (4, 84, 84)}
    obs, _ = grey.reset(seed=0)
    assert grey.observation_space.contains(obs)
    memory = make_environment("ALE/Pong-v5", obs_type="ram")
    memory.reset(seed=0)
    obs = memory.step(np.int64(2))[0]
    assert np.array_equal(obs, memory.unwrapped.ale.getRAM())  # type: ignore[attr-defined]
    assert ObservationReader("Pong", memory.observation_space).shapes == {"": (128,)}
    assert memory.metadata["render_fps"] == 15  # 60 frames a second, 4 an action
    with pytest.raises(EnvironmentSetupError, match="frame_stack needs images"):
        make_environment("ALE/Pong-v5", obs_type="ram", frame_stack=4)
