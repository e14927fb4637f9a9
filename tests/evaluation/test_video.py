"""Videos: every size of frame, the environment's own speed, and no run lost to a picture."""

from __future__ import annotations

import importlib.util
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worldflux.evaluation.video import watchable, write_video
from worldflux.project.run import train_project

SIZES = [(1, 64), (64, 1), (1, 1), (17, 33), (500, 3)]


def frames(*sizes: tuple[int, int]) -> list[np.ndarray]:
    return [np.full((*size, 3), 40 * i, np.uint8) for i, size in enumerate(sizes)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fps", [4, 12.5, 50])
def test_every_size_and_speed_becomes_an_mp4(tmp_path: Path, size: Any, fps: float) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = write_video(tmp_path, "one", frames(*[size] * 5), fps)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == tuple(side + side % 2 for side in size)
        assert stream.average_rate == Fraction(fps)
        assert len(list(container.decode(stream))) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["one.mp4"]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_becomes_a_gif(tmp_path: Path, size: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    path = write_video(tmp_path, "one", frames(*[size] * 3), 20)
    with Image.open(path) as image:
        assert image.n_frames == 3
        assert image.info["duration"] == 50


def test_frames_that_change_their_size_are_cut_and_filled_up(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    path = write_video(tmp_path, "one", frames((16, 16), (8, 40), (40, 8)), 15)
    with av.open(str(path)) as container:
        assert {(f.height, f.width) for f in container.decode(video=0)} == {(16, 16)}


@pytest.mark.parametrize(("size", "shown"), [((64, 64), 192), ((1, 1), 192), ((400, 600), 600)])
def test_what_people_watch_is_large_enough_and_ends_slowly(size: Any, shown: int) -> None:
    seen = watchable(frames(size, size), 15)
    assert max(seen[0].shape[:2]) == shown
    assert len(seen) == 2 + 15
    assert np.array_equal(seen[-1], seen[1])
    assert set(np.unique(seen[1])) == {40}


PROJECT = """
project_name = "drawn"
environment = "custom"
model = "tdmpc2:ci"
[architecture]
horizon = 2
num_samples = 16
num_elites = 4
num_pi_trajs = 2
iterations = 1
[training]
total_steps = 2
batch_size = 4
eval_interval = 2
device = "cpu"
[data]
buffer_capacity = 500
[online_collection]
warmup_transitions = 30
pretrain = false
[evaluation]
episodes = 1
"""
WORLD = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Drawn(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 7}
    observation_space, action_space = spaces.Box(-1, 1, (3,)), spaces.Box(-1, 1, (1,))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(3, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.zeros(3, np.float32), 1.0, False, self.t >= 10, {}

    def render(self):
        return np.zeros(SIZE, np.uint8)


def make_env(render_mode=None):
    return Drawn(render_mode)
"""


def trained(folder: Path, size: tuple[int, int, int]) -> dict[str, Any]:
    (folder / "worldflux.toml").write_text(PROJECT)
    (folder / "dataset.py").write_text(WORLD.replace("SIZE", str(size)))
    outcome = train_project(folder, say=lambda line: None)
    manifest: dict[str, Any] = json.loads((outcome.folder / "run_manifest.json").read_text())
    assert manifest["status"] == "completed"
    return manifest


def test_a_run_records_one_row_of_pixels_at_the_speed_of_its_environment(tmp_path: Path) -> None:
    av = pytest.importorskip("av", reason="PyAV is not installed")
    manifest = trained(tmp_path, (1, 64, 3))
    assert "warnings" not in manifest
    (video,) = (tmp_path / "outputs" / "videos").iterdir()
    with av.open(str(video)) as container:
        assert container.streams.video[0].average_rate == 7


def test_a_video_that_cannot_be_written_costs_the_video(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    manifest = trained(tmp_path, (2, 40_000, 3))  # wider than h264 can be
    assert list((tmp_path / "outputs" / "videos").iterdir()) == []
    assert any(text.startswith("no video: ") for text in manifest["warnings"])
