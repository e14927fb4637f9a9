"""An environment that cannot draw is told and stepped all the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import EnvironmentSetupError
from worldflux.evaluation.episodes import play_episodes


class Bare(gymnasium.Env):
    """Its constructor knows nothing of drawing."""

    def __init__(self) -> None:
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return np.zeros(2, np.float32), 1.0, False, self.t == 5, {}


class OnScreen(Bare):
    """It draws in a window alone, and refuses any other way, as Gymnasium's tutorial does."""

    metadata: dict[str, Any] = {"render_modes": ["human"], "render_fps": 9}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        assert render_mode is None or render_mode in self.metadata["render_modes"]
        self.render_mode = render_mode


class Drawing(OnScreen):
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 9}  # noqa: RUF012


class DrawsNothing(Drawing):
    def render(self) -> Any:
        return np.zeros((4, 4), np.float32)


class HasNoScreen(Drawing):
    def render(self) -> Any:
        raise OSError("no screen")


CASES: dict[str, tuple[Any, str]] = {
    "Bare-v0": (Bare, 'has no render_mode "rgb_array"'),
    "OnScreen-v0": (OnScreen, 'has no render_mode "rgb_array"'),
    "DrawsNothing-v0": (DrawsNothing, r"float32\[4, 4\], expected uint8 \[H, W, 3\]"),
    "HasNoScreen-v0": (HasNoScreen, "raised OSError: no screen"),
}


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    for name, (built, _) in CASES.items():
        gymnasium.register(name, built, disable_env_checker=True)  # its warnings are not the point
    yield
    for name in CASES:
        del gymnasium.registry[name]


@pytest.mark.parametrize("env_id", CASES)
def test_it_is_told_and_stepped_all_the_same(env_id: str) -> None:
    envs = VectorEnvironment(env_id, lambda _: make_environment(env_id, "rgb_array"), 1)
    try:
        envs.reset(0)
        with pytest.raises(
            EnvironmentSetupError, match=f"{env_id} cannot draw: .*{CASES[env_id][1]}"
        ):
            envs.render_first()
        results = play_episodes(None, envs, 2, 0, max_frames=9)
    finally:
        envs.close()
    assert results.lengths.tolist() == [5, 5]
    assert results.frames == []
    assert "cannot draw" in (results.undrawn or "")


@pytest.mark.parametrize("env_id", ["Bare-v0", "OnScreen-v0"])
def test_it_cannot_be_observed_as_pixels(env_id: str) -> None:
    with pytest.raises(EnvironmentSetupError, match="cannot be observed as pixels") as caught:
        make_environment(env_id, pixels=True)
    assert "environment_kwargs.pixels" in (caught.value.hint or "")


def test_an_entry_point_without_the_class_is_told() -> None:
    gymnasium.register("Typo-v0", "tests.envs.test_drawing:Nowhere")
    try:
        with pytest.raises(EnvironmentSetupError, match="Nowhere"):
            make_environment("Typo-v0", "rgb_array")
    finally:
        del gymnasium.registry["Typo-v0"]


def test_a_program_that_drew_and_closed_nothing_ends_all_the_same() -> None:
    program = """
import worldflux.envs.vector as vector, worldflux.envs.make as make
name = "Pendulum-v1"
envs = vector.VectorEnvironment(name, lambda index: make.make_environment(name, "rgb_array"), 1)
envs.reset(0)
print(envs.render_first().shape, envs._processes[0].pid)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    shape, pid = done.stdout.rsplit(maxsplit=1)
    assert shape == "(500, 500, 3)"
    assert not Path(f"/proc/{pid}").exists()
