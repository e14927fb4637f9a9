"""`worldflux why` on runs that trained for real, and the checks during training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from worldflux.errors import RunFolderError
from worldflux.project.diagnose import why_run
from worldflux.project.run import train_project

from ..warm import Warm

FAULTY = """
import gymnasium

def make_env(render_mode=None):
    env = gymnasium.make("Pendulum-v1", render_mode=render_mode)
    return gymnasium.wrappers.TransformReward(env, lambda reward: 1e4 * reward)
"""


def test_a_fault_is_named_on_screen_in_the_manifest_and_by_the_command(
    tiny_project: Path, python: Warm
) -> None:
    (tiny_project / "dataset.py").write_text(FAULTY)
    warnings: list[str] = []
    train_project(
        tiny_project,
        overrides=[
            'training.on_unfit_data="warn"',
            "training.eval_interval=10",
            "online_collection.warmup_transitions=250",
        ],
        say=warnings.append,
    )
    manifest = json.loads((tiny_project / "outputs" / "run_manifest.json").read_text())
    assert [found["cause"] for found in manifest["diagnosis"]] == ["reward-scale"]
    sentence = manifest["diagnosis"][0]["sentence"]
    told = [text for text in manifest["warnings"] if sentence in text]
    assert len(told) == 1, manifest["warnings"]  # of two evaluations, and of the run itself
    before = sorted(path.name for path in (tiny_project / "outputs").rglob("*"))
    done = python.run("-m", "worldflux", "why", "--json", cwd=tiny_project)
    assert done.returncode == 3, done.stderr
    report = json.loads(done.stdout)
    assert report["verdict"] == "causes found"
    assert report["findings"][0]["cause"] == "reward-scale"
    assert report["missing"] == []
    assert sorted(path.name for path in (tiny_project / "outputs").rglob("*")) == before


def test_a_run_that_could_not_begin_says_what_stopped_it(tiny_project: Path) -> None:
    (tiny_project / "dataset.py").write_text(FAULTY)
    with pytest.raises(Exception, match="beyond"):
        train_project(tiny_project, say=lambda line: None)
    found = why_run(tiny_project / "outputs")
    assert {finding.cause for finding in found.findings} >= {"stopped", "reward-scale"}
    assert [text.partition(":")[0] for text in found.missing] == ["replay"]


def test_without_playing_the_folder_is_read_alone(tiny_project: Path) -> None:
    folder = train_project(tiny_project, say=lambda line: None).folder
    found = why_run(folder, play=False)
    assert "seed-ignored" not in found.checked
    assert "death-unseen" in found.checked
    assert found.missing == ("episodes: --no-play",)


def test_a_folder_of_several_runs_names_one(tmp_path: Path) -> None:
    for seed in (0, 1):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / "run_manifest.json").write_text("{}")
    with pytest.raises(RunFolderError, match="a folder of 2 runs") as caught:
        why_run(tmp_path)
    assert caught.value.hint == f"name one: --target {tmp_path / 'seed-0'}"
