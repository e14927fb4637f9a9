"""Frames of training: within their budget, bounded, and without influence on what is learned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.factory import create_world_model
from worldflux.files import sha256_of
from worldflux.project.gameplay import FRAMES_KEPT, MAX_SHARE, GameplayStream
from worldflux.project.run import train_project
from worldflux.training.callbacks import Callback
from worldflux.training.config import TrainingConfig
from worldflux.training.trainer import Trainer


class Clock:
    """Seconds that pass only when told; a frame costs `cost` of them."""

    def __init__(self, cost: float) -> None:
        self.now, self.cost = 0.0, cost

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1)
    return Trainer(model, TrainingConfig(device="cpu", output_dir=str(tmp_path / "out")))


@pytest.fixture
def envs() -> Iterator[VectorEnvironment]:
    env_id = "worldflux/Catch-v0"
    made = VectorEnvironment(env_id, lambda i: make_environment(env_id, "rgb_array"), 1)
    made.reset(0)
    yield made
    made.close()


class CostlyEnvironment:
    """The real environment, whose frames take `cost` seconds of a clock."""

    def __init__(self, envs: VectorEnvironment, clock: Clock) -> None:
        self.envs, self.clock = envs, clock

    def render_first(self) -> Any:
        self.clock.now += self.clock.cost
        return self.envs.render_first()


def play(stream: GameplayStream, trainer: Trainer, clock: Clock, seconds: float) -> None:
    """Updates of 10 ms, one environment step each."""
    end = clock.now + seconds
    while clock.now < end:
        clock.now += 0.01
        trainer.step += 1
        trainer.env_steps += 1
        stream.on_step_end(trainer, {})


def frames(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "gameplay").glob("*"))


@pytest.mark.parametrize(("cost", "expected"), [(0.0, 150), (0.001, 50), (0.01, 6), (0.5, 2)])
def test_frames_come_at_their_rate_or_as_often_as_the_budget_pays(
    tmp_path: Path, trainer: Trainer, envs: VectorEnvironment, cost: float, expected: int
) -> None:
    clock = Clock(cost)
    costly: Any = CostlyEnvironment(envs, clock)
    stream = GameplayStream(tmp_path, costly, fps=15, clock=clock)
    play(stream, trainer, clock, 10.0)
    drawn = int(frames(tmp_path)[-1].split("-")[0]) + 1
    assert drawn == pytest.approx(expected, rel=0.12, abs=1)
    # The first loads the renderer, and the second tells what one costs.
    assert (drawn - 2) * cost <= MAX_SHARE * 10.0


def test_files_are_few_small_pictures_and_go_on_after_a_resume(
    tmp_path: Path, trainer: Trainer, envs: VectorEnvironment
) -> None:
    for first in (0, 100):
        clock = Clock(0.0)
        stream = GameplayStream(tmp_path, envs, fps=1000, clock=clock)
        stream.on_train_begin(trainer)
        for _ in range(100):
            play(stream, trainer, clock, 0.01)
        names = frames(tmp_path)
        assert len(names) == FRAMES_KEPT
        numbers = [int(name.split("-")[0]) for name in names]
        assert numbers == list(range(first + 100 - FRAMES_KEPT, first + 100))
    picture = Image.open(tmp_path / "gameplay" / names[-1])
    assert (picture.format, picture.size) == ("JPEG", (64, 64))
    assert np.abs(np.asarray(picture, int) - envs.render_first()).mean() < 5
    assert sum(p.stat().st_size for p in (tmp_path / "gameplay").iterdir()) < 1 << 20


def test_an_agent_that_does_not_act_is_not_drawn_again(
    tmp_path: Path, trainer: Trainer, envs: VectorEnvironment
) -> None:
    clock = Clock(0.0)
    stream = GameplayStream(tmp_path, envs, fps=10, clock=clock)
    for _ in range(5):
        clock.now += 1.0
        stream.on_step_end(trainer, {})
    assert len(frames(tmp_path)) == 1


def test_an_environment_that_cannot_draw_is_told_once(tmp_path: Path, trainer: Trainer) -> None:
    class Told(Callback):
        messages: list[str] = []  # noqa: RUF012

        def on_warning(self, trainer: Trainer, message: str) -> None:
            self.messages.append(message)

    env_id = "worldflux/Catch-v0"
    blind = VectorEnvironment("blind", lambda i: BrokenDrawing(make_environment(env_id)), 1)
    trainer.add_callback(Told())
    clock = Clock(0.0)
    play(GameplayStream(tmp_path, blind, 15, clock), trainer, clock, 1.0)
    blind.close()
    assert len(Told.messages) == 1
    assert "no display here" in Told.messages[0]
    assert not (tmp_path / "gameplay").exists()


class BrokenDrawing:
    """An environment whose renderer has no display."""

    def __new__(cls, env: Any) -> Any:
        def render() -> Any:
            raise OSError("no display here")

        env.render = render
        return env


@pytest.mark.usefixtures("pictures")
def test_a_run_learns_the_same_with_and_without_frames(tiny_project: Path) -> None:
    weights = []
    for enabled in ("true", "false"):
        outcome = train_project(
            tiny_project,
            overrides=[f"gameplay.enabled={enabled}", f'training.output_dir="{enabled}"'],
            say=lambda line: None,
        )
        step = outcome.folder / "checkpoints" / "step-000000020"
        weights.append(sha256_of(step / "model.safetensors"))
        imagined = {path.name for path in (outcome.folder / "imagination").iterdir()}
        assert {"step-000000020.png", "step-000000020.json"} <= imagined
        assert (outcome.folder / "gameplay").exists() == (enabled == "true")
    assert weights[0] == weights[1]
