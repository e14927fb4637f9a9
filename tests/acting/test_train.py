"""Ten lines of a script train an environment, and leave a run like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

import worldflux
from worldflux.errors import (
    ConfigurationError,
    EnvironmentSetupError,
    RunFolderError,
    WorldFluxError,
)
from worldflux.project import dataset_file
from worldflux.project.open_run import open_run

SECTIONS: dict[str, Any] = {
    "training": {"batch_size": 4},
    "architecture": {"horizon": 2, "num_samples": 8, "num_elites": 2, "num_pi_trajs": 1},
    "online_collection": {"warmup_transitions": 20, "pretrain": False},
    "evaluation": {"episodes": 0},
    "gameplay": {"enabled": False},
}


def train(env: Any, folder: Path, steps: int = 2, **options: Any) -> worldflux.Agent:
    quiet: Any = options.pop("say", lambda line: None)
    return worldflux.train(
        env, "tdmpc2:ci", steps=steps, folder=folder, say=quiet, **SECTIONS, **options
    )


def test_a_function_is_trained_resumed_and_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> gymnasium.Env:
        return gymnasium.make("Pendulum-v1", g=5.0)

    folder, said = tmp_path / "run", []
    agent = train(make, folder)
    assert agent.folder == folder
    assert agent.act(np.zeros(3, np.float32)) in agent.action_space
    with pytest.raises(RunFolderError, match=r"resume=True\); start over .*: overwrite=True"):
        train(make, folder)
    assert train(make, folder, 3, resume=True, say=said.append).checkpoint is not None
    assert "resuming at update 2 of 3" in said
    assert open_run(folder).environments(1).spaces.action == agent.action_space
    monkeypatch.setattr(dataset_file, "_given", {})  # as in another process
    with pytest.raises(EnvironmentSetupError, match="in an environment that a script made"):
        open_run(folder).environments(1)
    assert worldflux.load_agent(folder).action_space == agent.action_space


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        (gymnasium.make("Pendulum-v1"), {}, "expected an id or a function that makes one"),
        ("Pendulum-v1", {"traning": {}}, "unknown section 'traning'"),
        ("Pendulum-v1", {"data": 3}, r"data = 3 .* expected a section"),
        ("Pendulum-v1", {"logging": {"notes": None}}, "notes = None is a NoneType, which no key"),
        ("Pendulum-v1", {"resume": True, "logging": {"tags": {"a"}}}, "tags = {'a'} is a set"),
        ("Pendulm-v1", {}, "did you mean 'Pendulum-v1'"),
        (lambda: gymnasium.make("CartPole-v1"), {}, "plans over continuous actions"),
    ],
)
def test_what_is_refused_touches_no_file(
    env: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(WorldFluxError, match=message) as refused:
        train(env, tmp_path / "run", **options)
    assert isinstance(refused.value, ConfigurationError)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("training", [3, None])
def test_a_section_that_is_none_is_refused(training: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=rf"^worldflux\.train: training = {training} is "):
        worldflux.train("Pendulum-v1", "tdmpc2:ci", steps=2, folder=tmp_path, training=training)
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_moved_is_resumed_by_the_same_call_and_started_over(tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    same: Any = {"logging": {"notes": "fast run 🚀"}}
    train("Pendulum-v1", tmp_path / "run", **same)
    (tmp_path / "run").rename(moved)
    train("Pendulum-v1", moved, 3, resume=True, **same)
    assert open_run(moved).manifest["project_name"] == "run"
    train("Pendulum-v1", moved, overwrite=True, **same)
    assert open_run(moved).manifest["global_step"] == 2


def test_an_environment_by_its_id_is_not_the_function_of_an_earlier_call(tmp_path: Path) -> None:
    def fails() -> gymnasium.Env:
        raise RuntimeError("no robot")

    folder = tmp_path / "run"
    train(lambda: gymnasium.make("MountainCarContinuous-v0"), folder)
    agent = train("Pendulum-v1", folder, overwrite=True)
    assert agent.observation_space.shape == (3,)
    with pytest.raises(WorldFluxError, match="no robot"):
        train(fails, tmp_path / "other")
    with pytest.raises(WorldFluxError, match="did you mean 'Pendulum-v1'"):
        train("Pendulm-v1", tmp_path / "other")


def test_a_resumed_run_takes_what_may_change_and_refuses_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    train("Pendulum-v1", folder)
    again: Any = {"folder": folder, "resume": True, "say": lambda line: None, "steps": np.int64(3)}
    with pytest.raises(ConfigurationError, match="model"):
        worldflux.train("Pendulum-v1", "dreamerv3:ci", **again)
    with pytest.raises(ConfigurationError, match=r"training\.seed"):
        worldflux.train("Pendulum-v1", "tdmpc2:ci", **again, training={"seed": 9})
    with pytest.raises(ConfigurationError, match="environment"):
        worldflux.train("MountainCarContinuous-v0", "tdmpc2:ci", **again)
    worldflux.train("Pendulum-v1", "tdmpc2:ci", **again, training={"log_interval": np.int64(1)})
    config = open_run(folder).manifest["training_config"]
    assert (config["total_steps"], config["log_interval"], config["batch_size"]) == (3, 1, 4)
    with pytest.raises(RunFolderError, match="leave resume=True out"):
        train("Pendulum-v1", tmp_path / "none", resume=True)
