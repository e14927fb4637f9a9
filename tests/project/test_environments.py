"""Environments of a project: arguments from worldflux.toml, own modules, faults in a whole run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from worldflux.cli.app import main
from worldflux.envs.namespaces import frames_per_step
from worldflux.errors import ConfigurationError, EnvironmentFault, EnvironmentSetupError
from worldflux.project.environments import environment_maker, measured_environment
from worldflux.project.loader import load_project
from worldflux.project.run import train_project

WORLDS = '''
import pathlib

import gymnasium
import numpy as np
from gymnasium import spaces


class Plain(gymnasium.Env):
    """Reward is the size; step `broken` of a run that has begun returns NaN, once."""

    def __init__(self, size=3, broken=0, folder=""):
        self.observation_space = spaces.Box(-1.0, 1.0, (size,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.size, self.broken, self.folder = size, broken, pathlib.Path(folder)
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(self.size, np.float32), {}

    def step(self, action):
        self.steps += 1
        value = 0.0
        mark = self.folder / "mark"
        begun = (self.folder / "outputs" / "run_manifest.json").exists()
        if self.steps == self.broken and begun and not mark.exists():
            mark.touch()
            value = float("nan")
        return np.full(self.size, value, np.float32), float(self.size), False, False, {}


gymnasium.register("Plain-v0", Plain, max_episode_steps=20)
'''


@pytest.fixture
def own_world(tiny_project: Path) -> Path:
    """The tiny project in its own environment, a module next to worldflux.toml."""
    (tiny_project / "worlds.py").write_text(WORLDS)
    text = (tiny_project / "worldflux.toml").read_text()
    text = text.replace('"Pendulum-v1"', '"worlds:Plain-v0"')
    (tiny_project / "worldflux.toml").write_text(text + "\n[environment_kwargs]\nsize = 4\n")
    return tiny_project


def test_arguments_reach_a_module_of_the_user(own_world: Path) -> None:
    assert measured_environment(load_project(own_world)).spec.obs_shape == (4,)
    project = load_project(own_world, ["environment_kwargs.size=6"])
    assert measured_environment(project).spec.obs_shape == (6,)


def test_an_argument_that_does_not_exist_is_told_where_it_is_set(own_world: Path) -> None:
    file = own_world / "worldflux.toml"
    file.write_text(file.read_text() + "sise = 6\n")
    line = len(file.read_text().splitlines())
    with pytest.raises(EnvironmentSetupError, match="takes no argument 'sise'") as caught:
        measured_environment(load_project(own_world))
    assert (caught.value.where or "").endswith(f"worldflux.toml:{line}:8")
    assert "'size'" in (caught.value.hint or "")


def test_an_argument_that_does_not_fit_is_told_where_it_is_set(own_world: Path) -> None:
    project = load_project(own_world, ["environment_kwargs.image_size=64"])
    with pytest.raises(EnvironmentSetupError, match="image_size needs images") as caught:
        measured_environment(project)
    assert "environment_kwargs.image_size" in (caught.value.where or "")


def test_arguments_reach_make_env_of_dataset_py(own_world: Path) -> None:
    own = own_world / "dataset.py"
    head = "from worldflux.envs import make_environment\n"
    own.write_text(
        head + "def make_env(render_mode=None, environment=None, **arguments):\n"
        "    return make_environment(environment, render_mode, **arguments)\n"
    )
    assert measured_environment(load_project(own_world)).spec.obs_shape == (4,)
    own.write_text(
        head + "def make_env(render_mode=None):\n    return make_environment('Pendulum-v1')\n"
    )
    with pytest.raises(ConfigurationError, match=r"sets size, and make_env .* does not take it"):
        measured_environment(load_project(own_world))


def test_an_own_environment_that_cannot_draw_as_asked_is_made_without(own_world: Path) -> None:
    (own_world / "dataset.py").write_text(
        "from worlds import Plain\n\n"
        "def make_env(render_mode=None):\n"
        "    assert render_mode in (None, 'human', 'rgb_array_list')\n"
        "    return Plain()\n"
    )
    make = environment_maker(own_world, "own-v0", {})
    assert make("rgb_array").observation_space.shape == (3,)
    del gymnasium.registry["Plain-v0"]  # registered in this process, which later runs fork


def broken_run(root: Path, *extra: str) -> list[str]:
    folder = json.dumps(str(root))
    return ["environment_kwargs.broken=15", f"environment_kwargs.folder={folder}", *extra]


def manifest(root: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / "outputs" / "run_manifest.json").read_text())
    return found


@pytest.mark.parametrize("vector", ["sync", "async"])
def test_a_fault_stops_the_run_which_then_can_go_on(own_world: Path, vector: str) -> None:
    overrides = broken_run(own_world, f"online_collection.vector={vector}")
    with pytest.raises(EnvironmentFault, match=r"environment 0 failed at step 15: observation is"):
        train_project(own_world, overrides=overrides, say=lambda line: None)
    assert manifest(own_world)["status"] == "failed"
    assert "failed at step 15" in manifest(own_world)["reason"]
    outcome = train_project(own_world, overrides=overrides, resume=True, say=lambda line: None)
    assert (outcome.exit_code, manifest(own_world)["status"]) == (0, "completed")


def test_a_fault_that_is_mended_is_on_screen_and_in_the_manifest(own_world: Path) -> None:
    told: list[str] = []
    overrides = broken_run(own_world, "online_collection.on_env_error=restart")
    outcome = train_project(own_world, overrides=overrides, say=told.append)
    assert outcome.exit_code == 0
    restarts = manifest(own_world)["env_restarts"]
    assert len(restarts) == 1
    assert "environment 0 failed at step 15: observation is not finite: nan" in restarts[0]
    assert any(line.startswith("warning: ") and restarts[0] in line for line in told)


def test_a_fault_of_an_own_environment_names_its_make_env(own_world: Path) -> None:
    (own_world / "dataset.py").write_text(
        "from worlds import Plain\n\n"
        "def make_env(render_mode=None, **arguments):\n"
        "    return Plain(**arguments)\n"
    )
    name = "dataset.py:make_env: environment 0"
    with pytest.raises(EnvironmentFault, match=f"^{name} failed at step 15: observation"):
        train_project(own_world, overrides=broken_run(own_world), say=lambda line: None)
    assert manifest(own_world)["environment"]["named"] == "worlds:Plain-v0"
    with pytest.raises(EnvironmentFault, match=f": {name} cannot be made: make raised"):
        measured_environment(load_project(own_world, ["environment_kwargs.folder=3"]))
    del gymnasium.registry["Plain-v0"]  # registered in this process, which later runs fork


def test_a_native_form_that_does_not_exist_is_told(own_world: Path) -> None:
    with pytest.raises(EnvironmentSetupError, match="does not exist here") as caught:
        train_project(
            own_world, overrides=["online_collection.vector=native"], say=lambda line: None
        )
    assert "sync" in (caught.value.hint or "")


def test_the_native_form_of_what_dataset_py_makes_is_refused(own_world: Path) -> None:
    code = "import worlds\n\n\ndef make_env(**arguments):\n    return worlds.Plain(3)\n"
    (own_world / "dataset.py").write_text(code)
    overrides = ["online_collection.vector=native", "environment=custom"]
    with pytest.raises(ConfigurationError, match=r"dataset.py makes its own") as caught:
        train_project(own_world, overrides=overrides, say=lambda line: None)
    assert caught.value.where == "--set online_collection.vector=native"
    assert not (own_world / "outputs").exists()


def test_a_missing_package_ends_with_exit_code_4(
    own_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_world / "worlds.py").write_text("import a_package_that_is_not_there\n")
    with pytest.raises(SystemExit) as caught:
        main(["train", "--config", str(own_world / "worldflux.toml")])
    assert caught.value.code == 4
    assert "hint: pip install a_package_that_is_not_there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("env_id", "repeat", "frames"),
    [
        ("ALE/Pong-v5", None, 4),
        ("ALE/Pong-v5", 2, 2),
        ("dm_control/walker-walk-v0", None, 2),
        ("Pendulum-v1", None, 1),
        ("Pendulum-v1", 3, 3),
    ],
)
def test_the_frames_of_an_agent_step_are_the_namespaces(
    env_id: str, repeat: int | None, frames: int
) -> None:
    assert frames_per_step(env_id, repeat) == frames
