"""`worldflux train` with `training.backend`: the official program runs the project's task."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from worldflux.backends.dreamerv3 import PROGRAM as DREAMERV3
from worldflux.backends.jobs import JobHandle, JobStatus, list_jobs
from worldflux.backends.program import Program, official_task
from worldflux.backends.tdmpc2 import PROGRAM as TDMPC2
from worldflux.errors import ConfigurationError
from worldflux.project.run import train_project

PROJECT = """
project_name = "walker"
environment = "dm_control/walker-walk-v0"
model = "tdmpc2:official_5m"

[training]
backend = "official_tdmpc2_torch_subprocess"
total_steps = 1500
seed = 7
"""
WITH_IMAGES = [
    'model="dreamerv3:official_12m"',
    'training.backend="official_dreamerv3_jax_subprocess"',
    "environment_kwargs.pixels=true",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "worldflux.toml").write_text(PROJECT)
    return tmp_path


def test_a_project_is_trained_by_the_official_program(checkouts: Path, project: Path) -> None:
    lines: list[str] = []
    outcome = train_project(project, say=lines.append)
    assert (outcome.exit_code, outcome.result.step) == (0, 1500)
    manifest = json.loads((outcome.folder / "run_manifest.json").read_text())
    assert (manifest["status"], manifest["seeds"]["run"]) == ("completed", 7)
    assert manifest["environment"]["id"] == "dm_control/walker-walk-v0"
    assert {"task=walker-walk", "steps=1500", "obs=state"} <= set(manifest["delegated"]["command"])
    assert any("Training completed successfully" in line for line in lines)
    assert not any("warning" in line for line in lines)


def test_pixels_and_updates_reach_dreamerv3(checkouts: Path, project: Path) -> None:
    outcome = train_project(project, overrides=WITH_IMAGES, say=lambda line: None)
    flags = json.loads((outcome.folder / "official" / "config.yaml").read_text())
    assert (flags["configs"], flags["task"]) == (["dmc_vision", "size12m"], ["dmc_walker_walk"])
    assert flags["run.steps"] == [str(1024 + 4 * 1500)]


def test_what_the_program_does_not_receive_is_named(checkouts: Path, project: Path) -> None:
    lines: list[str] = []
    told = ["training.eval_interval=10", "gameplay.fps=3"]
    train_project(project, overrides=told, say=lines.append)
    assert (
        lines[0]
        == "warning: the official program does not receive training.eval_interval, [gameplay]"
    )
    other = [*told, 'training.output_dir="other"']
    with pytest.raises(ConfigurationError, match="does not receive"):
        train_project(project, overrides=other, strict=True, say=lines.append)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ('environment="Pendulum-v1"', "has no task for the environment 'Pendulum-v1'"),
        ('training.backend="official_dreamerv3_jax_subprocess"', "does not run tdmpc2"),
        ("architecture.horizon=4", "takes no \\[architecture\\]"),
        ("environment_kwargs.action_repeat=4", "does not take environment_kwargs action_repeat"),
    ],
)
def test_what_the_program_cannot_take_is_refused(
    checkouts: Path, project: Path, override: str, words: str
) -> None:
    with pytest.raises(ConfigurationError, match=words):
        train_project(project, overrides=[override], say=lambda line: None)
    with pytest.raises(ConfigurationError, match="cannot be resumed"):
        train_project(project, resume=True, say=lambda line: None)
    assert list_jobs() == []


def test_ctrl_c_leaves_the_job_running(checkouts: Path, project: Path) -> None:
    """Its following ends with 130, and says how to follow or end the job."""
    command = [sys.executable, "-m", "worldflux", "train", "--set", "training.total_steps=400000"]
    train = subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True)
    assert train.stderr is not None
    for line in train.stderr:
        if "train  " in line:
            break
    train.send_signal(signal.SIGINT)
    said = train.stderr.read()
    assert train.wait(20) == 130, said
    assert "the job continues: worldflux jobs logs" in said
    (job,) = list_jobs()
    time.sleep(0.3)
    assert JobHandle.find(job.id).status is JobStatus.RUNNING
    assert job.cancel() is JobStatus.CANCELLED


@pytest.mark.parametrize(
    ("program", "task", "env_id", "arguments"),
    [
        (TDMPC2, "walker-walk", "dm_control/walker-walk-v0", {}),
        (TDMPC2, "finger-turn-easy", "dm_control/finger-turn_easy-v0", {}),
        (TDMPC2, "cup-catch", "dm_control/ball_in_cup-catch-v0", {}),
        (TDMPC2, "pointmass-easy", "dm_control/point_mass-easy-v0", {}),
        (DREAMERV3, "dmc_cup_catch", "dm_control/ball_in_cup-catch-v0", {}),
        (DREAMERV3, "dmc_finger_turn_easy", "dm_control/finger-turn_easy-v0", {}),
        (DREAMERV3, "atari_ms_pacman", "ALE/MsPacman-v5", {}),
        (DREAMERV3, "atari100k_pong", "ALE/Pong-v5", {"repeat_action_probability": 0.0}),
    ],
)
def test_a_task_has_one_name_here_and_one_there(
    program: Program, task: str, env_id: str, arguments: dict[str, Any]
) -> None:
    assert program.environment_id(task) == env_id
    assert official_task(program, env_id, arguments) == task
