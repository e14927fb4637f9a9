"""The generated scripts, run with plain python: the same edge as the commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..warm import Warm


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory, python: Warm) -> Path:
    folder = tmp_path_factory.mktemp("initialised")
    python.run("-m", "worldflux", "init", "scripted", "--yes", cwd=folder, check=True)
    return folder / "scripted"


@pytest.fixture
def project(tmp_path: Path, initialised: Path) -> Path:
    return Path(shutil.copytree(initialised, tmp_path / "scripted"))


def test_train_and_inference_work_from_another_folder(project: Path, python: Warm) -> None:
    settings = ["online_collection.warmup_transitions=50", "online_collection.pretrain=false"]
    settings += ["evaluation.episodes=1", "gameplay.enabled=false"]
    settings += [f"architecture.{name}" for name in ("num_samples=16", "iterations=1", "horizon=2")]
    settings += [f"architecture.{name}" for name in ("num_elites=4", "num_pi_trajs=2")]
    flags = [part for setting in settings for part in ("--set", setting)]
    train = [str(project / "train.py"), "--steps", "5", *flags]
    done = python.run(*train, cwd=project.parent)
    assert done.returncode == 0, done.stderr
    assert (project / "outputs" / "run_manifest.json").is_file()
    done = python.run(str(project / "inference.py"), cwd=project.parent)
    assert done.returncode == 0, done.stderr
    assert "open-loop error" in done.stdout


@pytest.mark.parametrize("script", ["train.py", "inference.py", "local_dashboard.py"])
def test_a_mistake_in_the_project_is_told_without_a_traceback(
    project: Path, script: str, python: Warm
) -> None:
    (project / "worldflux.toml").write_text("project_nam = 1\n")
    done = python.run(str(project / script), cwd=project.parent)
    assert done.returncode == 2
    assert "worldflux.toml:1:1" in done.stderr
    assert "Traceback" not in done.stderr
