"""The generated scripts, run with plain python: the same edge as the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def project(tmp_path: Path) -> Path:
    command = [sys.executable, "-m", "worldflux", "init", "scripted", "--yes"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path / "scripted"


def python(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=root.parent,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_train_and_inference_work_from_another_folder(project: Path) -> None:
    settings = ["online_collection.warmup_transitions=50", "online_collection.pretrain=false"]
    settings += ["evaluation.episodes=1", "gameplay.enabled=false"]
    settings += [f"architecture.{name}" for name in ("num_samples=16", "iterations=1", "horizon=2")]
    settings += [f"architecture.{name}" for name in ("num_elites=4", "num_pi_trajs=2")]
    flags = [part for setting in settings for part in ("--set", setting)]
    done = python(project, str(project / "train.py"), "--steps", "5", *flags)
    assert done.returncode == 0, done.stderr
    assert (project / "outputs" / "run_manifest.json").is_file()
    done = python(project, str(project / "inference.py"))
    assert done.returncode == 0, done.stderr
    assert "open-loop error" in done.stdout


@pytest.mark.parametrize("script", ["train.py", "inference.py", "local_dashboard.py"])
def test_a_mistake_in_the_project_is_told_without_a_traceback(project: Path, script: str) -> None:
    (project / "worldflux.toml").write_text("project_nam = 1\n")
    done = python(project, str(project / script))
    assert done.returncode == 2
    assert "worldflux.toml:1:1" in done.stderr
    assert "Traceback" not in done.stderr
