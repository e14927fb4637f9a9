"""`worldflux/Catch-v0`: deterministic, by Gymnasium's own rules, solvable and not by chance."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from worldflux.envs.catch import BALL, PADDLE, Catch
from worldflux.envs.make import make_environment
from worldflux.envs.spec import spec_of


def play(env: Catch, seed: int, policy: str, rng: np.random.Generator) -> float:
    env.reset(seed=seed)
    reward, landed = 0.0, False
    while not landed:
        towards = int(np.sign(env.column - env.paddle)) + 1
        action = towards if policy == "follow" else int(rng.integers(3))
        _, reward, landed, truncated, _ = env.step(np.int64(action))
        assert not truncated
    return reward


def test_it_keeps_the_rules_of_gymnasium() -> None:
    env = make_environment("worldflux/Catch-v0")
    check_env(env.unwrapped, skip_render_check=True)
    spec = spec_of("worldflux/Catch-v0", env.observation_space, env.action_space, None)
    assert (spec.obs_shape, spec.action_dim, spec.action_type) == ((3, 64, 64), 3, "discrete")


def test_the_frame_shows_ball_and_paddle() -> None:
    env = Catch(render_mode="rgb_array")
    frame, _ = env.reset(seed=3)
    assert frame.shape == (64, 64, 3)
    assert frame.dtype == np.uint8
    assert tuple(frame[0, 8 * env.column]) == BALL
    assert tuple(frame[63, 8 * env.paddle]) == PADDLE
    assert (frame.any(-1)).sum() == 2 * 64
    assert np.array_equal(env.render(), frame)


def test_following_the_ball_always_catches_it_and_chance_rarely_does() -> None:
    env, rng = Catch(), np.random.default_rng(0)
    assert all(play(env, seed, "follow", rng) == 1.0 for seed in range(100))
    by_chance = np.mean([play(env, seed, "random", rng) for seed in range(1000)])
    assert 0.08 < by_chance < 0.2


def test_the_same_seed_gives_the_same_episode() -> None:
    frames = []
    for _ in range(2):
        env = Catch()
        seen = [env.reset(seed=5)[0]]
        seen += [env.step(np.int64(a))[0] for a in (0, 2, 1, 2)]
        frames.append(np.stack(seen))
    assert np.array_equal(*frames)


def test_a_slower_ball_makes_a_longer_episode() -> None:
    env, rng = Catch(steps_per_row=3), np.random.default_rng(0)
    assert all(play(env, seed, "follow", rng) == 1.0 for seed in range(20))
    assert env.steps == 21
    env.reset(seed=0)
    rows = [env.row]
    for _ in range(7):
        env.step(np.int64(1))
        rows.append(env.row)
    assert rows == [0, 0, 0, 1, 1, 1, 2, 2]


def test_a_ball_that_never_falls_is_refused() -> None:
    with pytest.raises(ValueError, match="steps_per_row is 0"):
        Catch(steps_per_row=0)
