"""Lives that end episodes: the game continues, resume repeats it, evaluation counts it whole."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.atari import AtariProtocol
from worldflux.envs.episode_seeds import SeededEpisodes
from worldflux.envs.vector import VectorEnvironment
from worldflux.evaluation.episodes import play_episodes

LIVES, FRAMES_A_LIFE = 3, 20


class Game(gymnasium.Env):
    """Three lives of 20 frames; a frame shows its number, the game's chance and the last action."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(0, 255, (16, 16, 3), np.uint8)
        self.action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t, self.chance, self.action = 0, int(self.np_random.integers(256)), 0
        return self.frame(), {"lives": LIVES}

    def step(self, action: Any) -> Any:
        self.t, self.action = self.t + 1, int(action)
        lives = LIVES - self.t // FRAMES_A_LIFE
        return self.frame(), 1.0, lives == 0, False, {"lives": lives}

    def frame(self) -> np.ndarray:
        frame = np.zeros((16, 16, 3), np.uint8)
        frame[:] = self.t, self.chance, self.action
        return frame


def make(index: int) -> AtariProtocol:
    return AtariProtocol(Game(), (16, 16), noop_max=5, terminal_on_life_loss=True)


def collector(seed: int = 3) -> Collector:
    envs = VectorEnvironment("Game-v0", make, 2)
    return Collector(envs, ReplayBuffer(500, envs.spec.replay_shapes, 3, num_envs=2), seed=seed)


def test_hosted_lives_follow_one_another() -> None:
    env = SeededEpisodes(make(0), 0)
    env.reset(seed=0)
    lives, chances = [], []
    for _ in range(8):
        lives.append(LIVES - env.unwrapped.t // FRAMES_A_LIFE)  # type: ignore[attr-defined]
        chances.append(env.unwrapped.chance)  # type: ignore[attr-defined]
        while not env.step(np.int64(1))[2]:
            pass
        env.reset()
    assert lives == [3, 2, 1, 3, 2, 1, 3, 2]
    assert chances[:3] == [chances[0]] * 3
    assert len({chances[0], chances[3], chances[6]}) > 1  # games have seeds of their own


@pytest.mark.parametrize("stands_at", range(1, 40, 3))
def test_a_game_continues_exactly_after_resume(stands_at: int) -> None:
    whole, first = collector(), collector()
    for _ in range(60):
        whole.collect_random()
    for _ in range(stands_at):
        first.collect_random()
    state = first.state_dict()
    again = collector(seed=99)
    again.buffer = first.buffer
    again.load_state_dict(state)
    assert again.restarted == []
    for _ in range(60 - stands_at):
        again.collect_random()
    for one, other in zip(
        whole.buffer.rows(0, 60).values(), again.buffer.rows(0, 60).values(), strict=True
    ):
        assert np.array_equal(one, other)
    assert (again.episodes_ended, again.env_steps) == (whole.episodes_ended, whole.env_steps)
    for one_collector in (whole, first, again):
        one_collector.envs.close()


def test_a_state_saved_before_games_continued_is_read() -> None:
    one = collector()
    for _ in range(4):
        one.collect_random()
    state = one.state_dict()
    del state["position"]["step"]["continues"]
    one.load_state_dict(state)
    assert one.restarted == []
    one.envs.close()


def test_evaluation_counts_whole_games() -> None:
    envs = VectorEnvironment("Game-v0", make, 2)
    results = play_episodes(None, envs, 4, seed=5)
    envs.close()
    # 60 frames in actions of 4, less the idle ones; each new life begins with an idle frame.
    assert ((results.lengths >= 13) & (results.lengths <= 17)).all()
    assert (results.returns >= 50).all()
