"""What a resumed run continues with, what it refuses, and that a refusal touches no file."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from worldflux.errors import (
    CheckpointError,
    ConfigurationError,
    MissingDependencyError,
    RunFolderError,
    WorldFluxError,
)
from worldflux.project.manifest import read_manifest
from worldflux.project.run import RunOutcome, train_project
from worldflux.training import loggers
from worldflux.training.callbacks import Callback
from worldflux.training.threads import computing_with
from worldflux.training.trainer import Trainer

SHORT = (
    "training.total_steps=4",
    "training.save_interval=2",
    "training.eval_interval=4",
    "training.log_interval=1",
    "online_collection.warmup_transitions=10",
    "evaluation.episodes=1",
    "environment_kwargs.max_episode_steps=8",
)
SET = "training.learning_rate=0.005"
OWN = """
import gymnasium

def make_env(render_mode=None, **arguments):
    return gymnasium.make("Pendulum-v1", render_mode=render_mode, max_episode_steps={limit})
"""


def run(root: Path, *overrides: str, said: list[str] | None = None, **options: Any) -> RunOutcome:
    lines: list[str] = [] if said is None else said
    return train_project(root, overrides=overrides, say=lines.append, **options)


class StopAt(Callback):
    """Asks for a stop after an update, as a signal does."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        if trainer.step == self.step:
            trainer.request_stop()


def state_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Hash of every file below a folder, with the manifest's time of change."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns if path.name == "run_manifest.json" else 0,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test of this file leaves a finished run for the others."""
    return tmp_path_factory.mktemp("finished") / "outputs"


@pytest.fixture
def project(tiny_project: Path, finished_run: Path) -> Path:
    """The small project with a finished run that was started with settings of its own."""
    if finished_run.exists():
        shutil.copytree(finished_run, tiny_project / "outputs")
    else:
        shutil.copytree(run(tiny_project, *SHORT, SET).folder, finished_run)
    return tiny_project


@pytest.mark.parametrize(
    ("override", "named", "recorded", "asked"),
    [
        ("environment=MountainCarContinuous-v0", "environment", "Pendulum-v1", "MountainCar"),
        ("environment_kwargs.g=1.0", "environment_kwargs.g", "not set", "1.0"),
        ("model=tdmpc2:5m", "model", "tdmpc2:ci", "tdmpc2:5m"),
        ("architecture.hidden_dim=128", "architecture.hidden_dim", "32", "128"),
        ("training.seed=1", "training.seed", "42", "1"),
        ("training.optimizer=adam", "training.optimizer", "auto", "adam"),
        ("data.source=random", "data.source", "gym", "random"),
        ("data.buffer_capacity=400", "data.buffer_capacity", "5000", "400"),
        ("online_collection.num_envs=2", "online_collection.num_envs", "1", "2"),
        ("online_collection.warmup_transitions=20", "warmup_transitions", "10", "20"),
        ("training.total_steps=3", "training.total_steps", "4", "3"),
    ],
)
def test_what_cannot_change_is_refused_and_nothing_is_touched(
    project: Path, override: str, named: str, recorded: str, asked: str
) -> None:
    before = state_of(project / "outputs")
    with pytest.raises(ConfigurationError) as refused:
        run(project, override, resume=True)
    assert refused.value.exit_code == 2
    assert all(word in refused.value.message for word in (named, recorded, asked))
    assert refused.value.hint
    assert state_of(project / "outputs") == before


def test_every_refused_setting_is_named_at_once(project: Path) -> None:
    with pytest.raises(ConfigurationError) as refused:
        run(project, "training.seed=1", "online_collection.num_envs=2", resume=True)
    assert "training.seed" in refused.value.message
    assert "num_envs" in refused.value.message


def _without_wandb(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    found = loggers.importlib.util.find_spec
    monkeypatch.setattr(
        loggers.importlib.util, "find_spec", lambda name: None if name == "wandb" else found(name)
    )
    return ('training.log_to=["wandb"]', "training.total_steps=6")


def _damaged_manifest(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    (root / "outputs" / "run_manifest.json").write_text('{"schema_version": 1, "status"')
    return ()


def _damaged_checkpoints(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    for path in (root / "outputs" / "checkpoints").glob("*/state.json"):
        path.write_text("{")
    return ("training.total_steps=6",)


def _broken_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    (root / "dataset.py").write_text(
        "def make_env(render_mode=None, **arguments):\n    raise OSError('gone')\n"
    )
    return ("training.total_steps=6",)


def _other_spaces(root: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    other = OWN.replace("Pendulum-v1", "MountainCarContinuous-v0").format(limit=40)
    (root / "dataset.py").write_text(other)
    return ("training.total_steps=6",)


@pytest.mark.parametrize(
    ("prepare", "kind", "words"),
    [
        (_without_wandb, MissingDependencyError, "wandb"),
        (_damaged_manifest, RunFolderError, "damaged"),
        (_damaged_checkpoints, CheckpointError, "no valid checkpoint"),
        (_broken_environment, WorldFluxError, "gone"),
        (_other_spaces, ConfigurationError, "obs_shape of the environment"),
    ],
)
def test_what_cannot_start_leaves_the_run_as_it_was(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Any,
    kind: type[WorldFluxError],
    words: str,
) -> None:
    overrides = prepare(project, monkeypatch)
    before = state_of(project / "outputs")
    with pytest.raises(kind, match=words):
        run(project, *overrides, resume=True)
    assert state_of(project / "outputs") == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_strict_resume_without_its_device_touches_nothing(project: Path) -> None:
    before = state_of(project / "outputs")
    with pytest.raises(ConfigurationError, match="cuda"):
        run(project, "training.device=cuda", "training.total_steps=6", resume=True, strict=True)
    assert state_of(project / "outputs") == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_run_of_the_cpu_goes_on_on_a_gpu_and_comes_back(project: Path) -> None:
    for device, steps in (("cuda", 8), ("cpu", 12)):
        told = f"training.device={device}", f"training.total_steps={steps}"
        run(project, *told, resume=True, strict=True)
        manifest = read_manifest(project / "outputs")
        assert manifest["sessions"][-1]["device"].startswith(device)
        assert manifest["global_step"] == steps


def test_a_run_continues_with_its_own_settings_and_differences_are_reported(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = project / "worldflux.toml"
    toml.write_text(toml.read_text().replace("batch_size = 8", "batch_size = 16"))
    monkeypatch.setenv("WORLDFLUX_ONLINE_COLLECTION__COLLECT_STEPS_PER_UPDATE", "3")
    said: list[str] = []
    run(project, "training.total_steps=6", "training.warmup_steps=0", resume=True, said=said)
    (line,) = [line for line in said if "its own settings" in line]
    assert "\n  training.batch_size = 8 (worldflux.toml: 16)\n" in line  # a line for each
    assert "training.learning_rate = 0.005 (worldflux.toml: not set)" in line
    assert "(WORLDFLUX_ONLINE_COLLECTION__COLLECT_STEPS_PER_UPDATE: 3" in line
    manifest = read_manifest(project / "outputs")
    assert manifest["training_config"]["batch_size"] == 8
    assert manifest["training_config"]["learning_rate"] == 0.005
    assert manifest["configuration"]["online_collection"]["collect_steps_per_update"] == 1.0
    assert manifest["sessions"][-1]["changed"] == {"training.total_steps": [4, 6]}


def test_another_collection_ratio_counts_from_the_resume_in_the_header_too(project: Path) -> None:
    before = read_manifest(project / "outputs")["env_steps"]
    said: list[str] = []
    ratio = "online_collection.collect_steps_per_update=5"
    run(project, "training.total_steps=6", ratio, resume=True, said=said)
    total = read_manifest(project / "outputs")["env_steps"]
    assert total == before + 2 * 5
    assert any(f"6 updates, {total} environment steps" in text for text in said)
    run(project, "training.total_steps=8", resume=True, said=said)  # with the same ratio again
    total = read_manifest(project / "outputs")["env_steps"]
    assert any(f"8 updates, {total} environment steps" in text for text in said)


def test_sessions_are_a_list_and_a_change_makes_another_configuration(project: Path) -> None:
    before = read_manifest(project / "outputs")
    run(project, "training.total_steps=6", resume=True)
    longer = read_manifest(project / "outputs")
    run(project, "training.total_steps=8", "training.learning_rate=0.001", resume=True)
    manifest = read_manifest(project / "outputs")
    updates = [(s["from_update"], s["to_update"], s["status"]) for s in manifest["sessions"]]
    assert updates == [(0, 4, "completed"), (4, 6, "completed"), (6, 8, "completed")]
    assert manifest["sessions"][2]["changed"] == {
        "training.learning_rate": [0.005, 0.001],
        "training.total_steps": [6, 8],
    }
    assert all(s["started_at"] <= s["ended_at"] for s in manifest["sessions"])
    assert 0 < before["cpu_s"] < longer["cpu_s"] < manifest["cpu_s"]  # of all sessions
    learning = [each["spent_s"]["learning"] for each in (before, longer, manifest)]
    assert 0 < learning[0] < learning[1] < learning[2]
    assert sum(manifest["spent_s"].values()) <= manifest["wall_s"]
    assert all(s["device"] == "cpu" for s in manifest["sessions"])
    assert "software" in manifest["sessions"][0]
    assert "software" not in manifest["sessions"][1]  # nothing differs
    at_once = run(project, *SHORT, SET, "training.total_steps=6", 'training.output_dir="other"')
    assert before["config_hash"] != longer["config_hash"]  # more updates
    assert longer["config_hash"] == read_manifest(at_once.folder)["config_hash"]
    run(project, "training.total_steps=8", 'training.output_dir="other"', resume=True)
    assert read_manifest(at_once.folder)["config_hash"] != manifest["config_hash"]


def test_stopped_and_resumed_without_its_flags_it_ends_as_if_never_stopped(
    project: Path,
) -> None:
    flags = (*SHORT, SET, "training.seed=7", "training.total_steps=6")
    (project / "dataset.py").write_text(OWN.format(limit=8))
    through = run(project, *flags, 'training.output_dir="through"').folder
    stopped = run(project, *flags, 'training.output_dir="x7"', callbacks=[StopAt(3)]).folder
    run(project, 'training.output_dir="x7"', resume=True)
    one, other = (read_manifest(folder) for folder in (through, stopped))
    assert one["weights_sha256"] == other["weights_sha256"]
    assert one["config_hash"] == other["config_hash"]
    assert other["seeds"]["run"] == 7


def test_a_complete_run_is_left_alone(project: Path) -> None:
    before, said = state_of(project / "outputs"), []
    outcome = run(project, resume=True, said=said)
    assert (outcome.exit_code, outcome.result.step) == (0, 4)
    assert any("complete at update 4" in line for line in said)
    assert state_of(project / "outputs") == before


def test_a_manifest_of_an_earlier_version_resumes_and_says_what_is_unknown(project: Path) -> None:
    path = project / "outputs" / "run_manifest.json"
    content = json.loads(path.read_text())
    for name in ("settings", "configuration", "sessions", "git"):
        del content[name]
    del content["environment"]["code"]
    path.write_text(json.dumps(content))
    before = state_of(project / "outputs")
    for override in ("environment=MountainCarContinuous-v0", "training.seed=1", "model=tdmpc2:5m"):
        with pytest.raises(ConfigurationError, match=r"cannot be resumed with other settings"):
            run(project, override, resume=True)
    with pytest.raises(ConfigurationError, match="hidden_dim is 32"):
        run(project, "architecture.hidden_dim=128", *SHORT, resume=True)
    assert state_of(project / "outputs") == before
    said: list[str] = []
    run(project, *SHORT, "training.total_steps=6", resume=True, said=said)
    assert any("earlier version" in line and "worldflux.toml" in line for line in said)
    manifest = read_manifest(project / "outputs")
    assert manifest["status"] == "completed"
    assert [s["to_update"] for s in manifest["sessions"]] == [4, 6]
    changed = manifest["sessions"][-1]["changed"]
    assert changed["training.learning_rate"] == [0.005, 3e-4]  # what the file has now is used
    assert changed["training.total_steps"] == [4, 6]


def test_a_changed_dataset_py_is_said_and_recorded(project: Path) -> None:
    (project / "dataset.py").write_text(
        OWN.replace("    return", "    from world import LIMIT\n    return").format(limit="LIMIT")
    )
    (project / "world.py").write_text("LIMIT = 8\n")
    folder = run(project, *SHORT, 'training.output_dir="own"').folder
    before = read_manifest(folder)
    (project / "world.py").write_text("LIMIT = 8  # the same\n")
    said: list[str] = []
    run(project, 'training.output_dir="own"', "training.total_steps=6", resume=True, said=said)
    assert any("world.py changed since this run began" in line for line in said)
    manifest = read_manifest(folder)
    assert "code.world.py" in manifest["sessions"][-1]["changed"]
    assert (
        manifest["environment"]["code"]["dataset.py"] == before["environment"]["code"]["dataset.py"]
    )
    assert manifest["config_hash"] != before["config_hash"]


def test_a_resume_that_fails_at_once_has_spent_nothing(project: Path) -> None:
    class Fails(Callback):
        def on_train_begin(self, trainer: Trainer) -> None:
            raise ValueError("at once")

    before = read_manifest(project / "outputs")["spent_s"]
    with pytest.raises(ValueError, match="at once"):
        run(project, "training.total_steps=6", resume=True, callbacks=[Fails()])
    assert read_manifest(project / "outputs")["spent_s"] == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("spent_s", {"learning": -5}), ("spent_s", {"other": "long"}), ("wall_s", float("nan"))],
)
def test_times_that_cannot_be_are_refused(project: Path, name: str, value: Any) -> None:
    path = project / "outputs" / "run_manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {name: value}))
    with pytest.raises(RunFolderError, match=rf"damaged: {name}"):
        run(project, "training.total_steps=6", resume=True)


def test_a_run_takes_as_many_threads_again_after_a_session_with_fewer(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldflux.training.threads._FOR_ONE", 1.0)
    with computing_with(4):
        run(project, *SHORT, SET, overwrite=True)
    for steps, there in ((6, 1), (8, 4)):
        with computing_with(there):
            run(project, f"training.total_steps={steps}", resume=True)
    sessions = read_manifest(project / "outputs")["sessions"]
    assert [session["threads"] for session in sessions] == [3, 1, 3]
