"""Pixels: real area resizing, drawn frames as observations, stacks and repeats."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.envs.make import make_environment
from worldflux.envs.requirements import has_library
from worldflux.envs.wrappers import AreaResizer, ResizedImage
from worldflux.errors import EnvironmentSetupError, MissingDependencyError


@settings(max_examples=40, deadline=None)
@given(
    old=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    new=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    seed=st.integers(0, 99),
)
def test_a_new_pixel_is_the_mean_of_its_area(
    old: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    image = np.random.default_rng(seed).random((*old, 2))
    # Blown up so far that old and new pixels are both whole blocks, then averaged by block.
    fine = image.repeat(new[0], 0).repeat(new[1], 1)
    expected = fine.reshape(new[0], old[0], new[1], old[1], 2).mean((1, 3))
    np.testing.assert_allclose(AreaResizer(old, new)(image), expected, atol=1e-6)


@pytest.mark.parametrize(("dtype", "expected"), [(np.uint8, 101), (np.float32, 100.75)])
def test_the_dtype_stays(dtype: Any, expected: float) -> None:
    image = np.array([[100, 101], [101, 101]], dtype)
    small = AreaResizer((2, 2), (1, 1))(image)
    assert (small.dtype, small[0, 0]) == (dtype, expected)


class Gradient(gymnasium.Env):
    """An image observation `[8, 6]` or `[8, 6, C]` that brightens by 1 a step."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        self.observation_space = spaces.Box(0, 255, (8, 6, *channels), np.uint8)
        self.action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.observe(), 1.0, self.t >= 9, False, {}

    def observe(self) -> np.ndarray:
        return np.full(self.observation_space.shape, self.t, np.uint8)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_image_observations_are_resized(channels: tuple[int, ...]) -> None:
    env = ResizedImage(Gradient(channels), (4, 4))
    obs, _ = env.reset()
    assert env.observation_space.shape == (4, 4, *channels) == obs.shape
    assert env.observation_space.contains(env.step(0)[0])


def test_frames_are_stacked_oldest_first_and_actions_repeated() -> None:
    gymnasium.register("Gradient-v0", lambda: Gradient((3,)), max_episode_steps=100)
    env = make_environment("Gradient-v0", frame_stack=3, action_repeat=4)
    obs, _ = env.reset()
    assert obs.shape == (9, 8, 6)
    assert obs[::3, 0, 0].tolist() == [0, 0, 0]
    told = [env.step(0) for _ in range(3)]
    assert [one[0][::3, 0, 0].tolist() for one in told] == [[0, 0, 4], [0, 4, 8], [4, 8, 9]]
    assert [one[1] for one in told] == [4.0, 4.0, 1.0]  # the end broke off the repeats
    assert [one[2] for one in told] == [False, False, True]
    assert env.spec is not None
    assert env.spec.max_episode_steps == 25
    gymnasium.registry.pop("Gradient-v0")


def test_classic_control_from_pixels_sees_what_it_draws() -> None:
    env = make_environment("CartPole-v1", pixels=True, image_size=[100, 150])
    obs, _ = env.reset(seed=1)
    drawn: Any = env.render()
    assert (obs.shape, obs.dtype) == ((100, 150, 3), np.uint8)
    blocks = drawn.reshape(100, 4, 150, 4, 3).mean((1, 3))  # 400 x 600 drawn
    assert np.abs(obs - blocks).max() <= 0.51
    assert not np.array_equal(obs, env.step(1)[0])
    env.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"suton": 1}, "CartPole-v1 takes no argument 'suton'"),
        ({"pixels": "yes"}, "environment_kwargs.pixels = 'yes': expected true or false"),
        ({"action_repeat": 0}, "environment_kwargs.action_repeat = 0: expected a whole number"),
        ({"image_size": [64]}, "environment_kwargs.image_size = [64]: expected a side"),
        ({"image_size": 64}, "environment_kwargs.image_size needs images"),
        ({"frame_stack": 3}, "environment_kwargs.frame_stack needs images"),
    ],
)
def test_an_argument_that_does_not_fit_is_told(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(EnvironmentSetupError) as caught:
        make_environment("CartPole-v1", **arguments)
    assert said in caught.value.message


def test_a_module_that_is_not_there_is_told() -> None:
    with pytest.raises(EnvironmentSetupError, match="there is no module 'no_such_worlds'") as e:
        make_environment("no_such_worlds:Env-v0")
    assert "no_such_worlds.py next to worldflux.toml" in (e.value.hint or "")


def test_a_module_that_raises_is_told_with_its_line(tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "worlds_broken.py").write_text("size = 3\nassert size == 4, 'odd size'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentSetupError, match="raised AssertionError: odd size") as caught:
        make_environment("worlds_broken:Env-v0")
    assert caught.value.where == f"{tmp_path}/worlds_broken.py:2"


def test_a_package_that_a_module_needs_is_told(tmp_path: Any, monkeypatch: Any) -> None:
    (tmp_path / "worlds_needing.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependencyError, match="a_package_that_is_not_there") as caught:
        make_environment("worlds_needing:Env-v0")
    assert caught.value.hint == "pip install a_package_that_is_not_there"
    assert caught.value.where == f"{tmp_path}/worlds_needing.py:1"


def test_control_tasks_are_seen_by_their_camera() -> None:
    suite = pytest.importorskip("dm_control.suite", reason="dm_control is not installed")
    if not has_library("libEGL.so.1") and not has_library("libOSMesa.so.8"):
        pytest.skip("MuJoCo needs libEGL.so.1 or libOSMesa.so.8 to draw: apt install libegl1")
    env = make_environment("dm_control/cartpole-swingup-v0", pixels=True, action_repeat=4)
    env.reset(seed=7)
    own, _ = env.reset(seed=7)
    official = suite.load("cartpole", "swingup", task_kwargs={"random": 7})
    official.reset()
    np.testing.assert_array_equal(own, official.physics.render(64, 64, camera_id=0))
    assert own.shape == (64, 64, 3)
    assert env.spec is not None
    assert env.spec.max_episode_steps == 250
    env.close()
