"""What a run's manifest records of where it comes from, and what its config_hash groups."""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from worldflux.cli.app import main
from worldflux.configuration_hash import (
    LATER,
    configuration_hash,
    configuration_of,
    decides_result,
    flattened,
    hash_holds,
)
from worldflux.project.evaluate import evaluate_run
from worldflux.project.manifest import read_manifest
from worldflux.project.provenance import environment_identity
from worldflux.project.run import train_project
from worldflux.training.callbacks import Callback
from worldflux.training.trainer import Trainer
from worldflux.verify.integrity import check_data
from worldflux.verify.quick import QuickSettings, verify_quick

SHORT = (
    "training.total_steps=2",
    "training.eval_interval=2",
    "online_collection.warmup_transitions=10",
    "evaluation.episodes=1",
)
OWN = """
import gymnasium

def make_env(render_mode=None, **arguments):
    return gymnasium.make("Pendulum-v1", render_mode=render_mode, max_episode_steps=8)
"""


@pytest.fixture
def project(tiny_project: Path) -> Path:
    (tiny_project / "dataset.py").write_text(OWN)
    return tiny_project


def trained(root: Path, name: str, *overrides: str, **options: Any) -> dict[str, Any]:
    given = (*SHORT, f'training.output_dir="{name}"', *overrides)
    options = {"say": lambda line: None, **options}
    folder = train_project(root, overrides=given, **options).folder
    return read_manifest(folder)


class Begun(Callback):
    """Ends a run once it has begun: its manifest is written then."""

    def on_train_begin(self, trainer: Trainer) -> None:
        raise StopIteration


def begun(root: Path, name: str, *overrides: str) -> str:
    with pytest.raises(StopIteration):
        trained(root, name, *overrides, callbacks=[Begun()])
    return str(read_manifest(root / name)["config_hash"])


def test_the_hash_groups_seeds_of_one_configuration_and_nothing_else(project: Path) -> None:
    first = begun(project, "a")
    same = ("training.seed=7", "training.log_interval=1", "training.save_interval=1",
            "gameplay.fps=3", "verify.episodes=9", "data.storage=ram",
            "online_collection.step_timeout_s=30.0", "training.batch_size=8")  # fmt: skip
    assert begun(project, "b", *same) == first
    hashes = {first}
    others = ("online_collection.collect_steps_per_update=3", "online_collection.pretrain=true",
              "evaluation.episodes=2", "data.sampling=recency", "environment_kwargs.g=1.0",
              "training.learning_rate=3e-4", "architecture.horizon=3")  # fmt: skip
    for number, other in enumerate(others):
        hashes.add(begun(project, f"other-{number}", other))
    (project / "dataset.py").write_text(OWN.replace("=8", "=9"))
    hashes.add(begun(project, "own"))
    assert len(hashes) == len(others) + 2


OF_AN_EARLIER_VERSION = (
    Path(__file__).parents[2] / "docs/evidence/tdmpc2-cup-catch/inputs/000/run_manifest.json"
)


def keys_of(manifest: dict[str, Any]) -> set[str]:
    sections = {**manifest["configuration"], "training": manifest["training_config"]}
    return {key for key in flattened(sections) if decides_result(key)} | {
        f"architecture.{key}" for key in manifest["model_config"]
    }


def test_a_setting_that_a_later_version_adds_changes_no_hash(project: Path) -> None:
    begun(project, "new")
    new, old = read_manifest(project / "new"), json.loads(OF_AN_EARLIER_VERSION.read_text())
    # Of every new setting LATER has to say what runs did before there was one.
    assert keys_of(new) - keys_of(old) <= LATER.keys()
    as_it_was = copy.deepcopy(new)
    del as_it_was["configuration"]["data"]["features"]
    del as_it_was["training_config"]["precision"]
    assert configuration_hash(as_it_was) == new["config_hash"]
    other = begun(project, "bfloat16", 'training.precision="bfloat16"')
    assert other != new["config_hash"]


def test_a_hash_that_counted_a_new_setting_still_holds_and_groups(project: Path) -> None:
    begun(project, "new")
    manifest = read_manifest(project / "new")
    counted = {**manifest, "config_hash": configuration_hash(manifest, left_out={})}
    assert counted["config_hash"] != manifest["config_hash"]
    assert hash_holds(manifest)
    assert hash_holds(counted)
    assert configuration_of(counted) == configuration_of(manifest)
    assert not hash_holds({**manifest, "config_hash": "0" * 64})


def test_a_run_records_its_sections_commit_and_simulators(project: Path) -> None:
    asked = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(project)]
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull}

    def git(*words: str) -> None:
        subprocess.run([*asked, *words], check=True, capture_output=True, env=environment)

    git("init")
    git("add", "worldflux.toml")
    git("commit", "-m", "first")
    clean = trained(project, "clean")
    toml = project / "worldflux.toml"
    toml.write_text(toml.read_text() + "\n# edited\n")
    edited = trained(project, "edited")
    assert len(clean["git"]["commit"]) == 40
    assert (clean["git"]["dirty"], edited["git"]["dirty"]) == (False, True)
    sections = clean["configuration"]
    assert sections["online_collection"]["warmup_transitions"] == 10
    assert sections["online_collection"]["collect_steps_per_update"] == 1.0  # the family's
    assert sections["data"]["buffer_capacity"] == 5000
    assert sections["evaluation"]["episodes"] == 1
    assert clean["settings"]["online_collection"]["warmup_transitions"] == 10
    assert "output_dir" not in clean["settings"]["training"]
    assert "gpu" in clean["machine"]


def test_an_own_environment_is_never_recorded_under_another_id(project: Path) -> None:
    said = list[str]()
    manifest = trained(project, "outputs", say=said.append)
    assert "environment    dataset.py:make_env\n" in "\n".join(said)
    assert "Pendulum-v1" not in "\n".join(said)
    entry = manifest["environment"]
    assert (entry["id"], entry["named"]) == ("dataset.py:make_env", "Pendulum-v1")
    assert set(entry["code"]) == {"dataset.py"}
    folder = project / "outputs"
    assert evaluate_run(folder, episodes=1, video=False).environment == "dataset.py:make_env"
    moved = project.parent / "elsewhere"
    folder.rename(moved)
    verdict = {check.name: check for check in verify_quick(moved, QuickSettings(episodes=2)).checks}
    assert "dataset.py" in verdict["model"].detail


def test_the_dataset_py_that_init_writes_is_the_environment_it_names(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["init", str(tmp_path / "new"), "--yes"])
    assert ended.value.code == 0
    root = tmp_path / "new"
    assert environment_identity(root, "Pendulum-v1") == {"id": "Pendulum-v1", "code": {}}
    path = root / "dataset.py"
    path.write_text(
        "# mine\n" + path.read_text().replace('"""One environment', '"""An environment')
    )
    assert environment_identity(root, "Pendulum-v1")["id"] == "Pendulum-v1"
    path.write_text(path.read_text().replace("    return make_environment(", "    return print("))
    assert environment_identity(root, "Pendulum-v1")["id"] == "dataset.py:make_env"


def test_code_beside_the_project_file_is_recorded_wherever_it_is_imported(tmp_path: Path) -> None:
    (tmp_path / "dataset.py").write_text("from worlds.point import Point\n\ndef make_env(): ...\n")
    (tmp_path / "worlds").mkdir()
    (tmp_path / "worlds" / "__init__.py").touch()
    (tmp_path / "worlds" / "point.py").write_text("from . import walls\nimport json, numpy\n")
    (tmp_path / "worlds" / "walls.py").touch()
    (tmp_path / "train.py").touch()
    code = environment_identity(tmp_path, "custom")["code"]
    assert set(code) == {
        "dataset.py", "worlds/__init__.py", "worlds/point.py", "worlds/walls.py",
    }  # fmt: skip
    (tmp_path / "dataset.py").unlink()
    assert set(environment_identity(tmp_path, "worlds.walls:Point-v0")["code"]) == {
        "worlds/walls.py"
    }


class StopAt(Callback):
    """Asks for a stop after the first update."""

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        trainer.request_stop()


def test_random_steps_alone_are_no_training(project: Path) -> None:
    pretraining = ("online_collection.pretrain=true", "training.total_steps=30")
    manifest = trained(project, "warm", *pretraining, callbacks=[StopAt()])
    assert (manifest["global_step"], manifest["env_steps"]) == (1, 10)
    assert manifest["run_classification"] == "contract_smoke"
    checks = {
        check.name: check
        for check in verify_quick(project / "warm", QuickSettings(episodes=2)).checks
    }
    assert checks["data"].status == "fail"
    assert "the agent collected nothing itself" in checks["data"].detail
    assert trained(project, "acted")["run_classification"] == "meaningful_local_training"


def test_a_run_of_no_update_is_not_said_to_have_collected_at_random(project: Path) -> None:
    trained(project, "none")
    manifest = {**read_manifest(project / "none"), "data_mode": "offline", "global_step": 0}
    check = check_data(manifest)
    assert check.status == "fail"
    assert check.detail.endswith("nothing was learned")
