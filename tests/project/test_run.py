"""A run through its public door: folder, lock, manifest, resume, degradation, interruption."""

from __future__ import annotations

import fcntl
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from worldflux.core.saved_model import load_tensors
from worldflux.errors import (
    ConfigurationError,
    EnvironmentSetupError,
    RunFolderError,
    TrainingError,
    WorldFluxError,
)
from worldflux.factory import create_world_model
from worldflux.files import sha256_of
from worldflux.project.manifest import read_manifest
from worldflux.project.open_run import open_run
from worldflux.project.run import RunOutcome, train_project
from worldflux.run_log import read_rows
from worldflux.training.callbacks import Callback
from worldflux.training.threads import computing_with
from worldflux.training.trainer import Trainer
from worldflux.verify.quick import QuickSettings, verify_quick


def run(root: Path, *overrides: str, **options: Any) -> RunOutcome:
    return train_project(root, overrides=overrides, say=lambda line: None, **options)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.usefixtures("pictures")
def test_a_run_leaves_all_that_the_contract_names(tiny_project: Path) -> None:
    outcome = run(tiny_project, "gameplay.enabled=true", "gameplay.max_frames=4")
    manifest = read_manifest(outcome.folder)
    assert manifest["status"] == "completed"
    assert manifest["run_classification"] == "meaningful_local_training"
    assert manifest["data_mode"] == "online"
    assert manifest["degraded_modes"] == []
    assert (manifest["global_step"], manifest["env_steps"]) == (20, 49)
    assert manifest["final"]["return_mean"] < 0 > manifest["random_return_mean"]
    weights = outcome.folder / "checkpoints" / manifest["final_checkpoint"] / "model.safetensors"
    assert sha256_of(weights) == manifest["weights_sha256"]
    rows = list(read_rows(outcome.folder / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    assert all(math.isfinite(row["loss/model"]) for row in rows)
    (evaluation,) = read_rows(outcome.folder / "eval.jsonl")
    assert evaluation["random_return_mean"] == manifest["random_return_mean"]
    assert (outcome.folder / "plots" / "return_curve.png").stat().st_size > 1000
    (video,) = (outcome.folder / "videos").iterdir()
    assert video.suffix in (".mp4", ".gif")
    model = create_world_model(str(outcome.folder))
    assert model.config.horizon == 2


@pytest.mark.parametrize(("settings", "expected"), [([], 1), (["training.threads=2"], 2)])
def test_a_run_and_what_opens_it_take_the_threads_that_suit_its_model(
    tiny_project: Path, settings: list[str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldflux.training.threads.os.cpu_count", lambda: 8)
    seen: list[int] = []

    class Watch(Callback):
        def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            seen.append(torch.get_num_threads())

    with computing_with(8):
        outcome = run(tiny_project, *settings, callbacks=[Watch()])
        assert set(seen) == {expected} == {read_manifest(outcome.folder)["threads"]}
        with open_run(outcome.folder).computing():
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == 8


def test_the_header_says_that_there_are_fewer_cores_than_threads(tiny_project: Path) -> None:
    said: list[str] = []
    train_project(tiny_project, overrides=["training.threads=1024"], say=said.append)
    assert "(training.threads = 1024, and there are not so many cores)" in "\n".join(said)


def test_the_same_seed_gives_the_same_weights(tiny_project: Path) -> None:
    folders = [run(tiny_project, f'training.output_dir="{name}"').folder for name in ("a", "b")]
    run(tiny_project, 'training.output_dir="c"', "training.seed=1")
    names = [f / "checkpoints" / "step-000000020" / "model.safetensors" for f in folders]
    names.append(tiny_project / "c" / "checkpoints" / "step-000000020" / "model.safetensors")
    first, second, other = (load_tensors(name) for name in names)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_resume_goes_on_and_logs_no_step_twice(tiny_project: Path) -> None:
    run(tiny_project)
    outcome = run(tiny_project, "training.total_steps=35", resume=True)
    assert outcome.result.step == 35
    rows = list(read_rows(outcome.folder / "metrics.jsonl"))
    assert [row["step"] for row in rows] == [5, 10, 15, 20, 25, 30, 35]
    manifest = read_manifest(outcome.folder)
    assert (manifest["status"], manifest["global_step"]) == ("completed", 35)
    assert manifest["env_resume"] == "exact"


def test_a_folder_that_holds_a_run_is_not_written_over(tiny_project: Path) -> None:
    outcome = run(tiny_project)
    before = tree(outcome.folder)
    with pytest.raises(RunFolderError, match="already holds a run") as caught:
        run(tiny_project)
    assert "--resume" in (caught.value.hint or "")
    assert tree(outcome.folder) == before


@pytest.mark.parametrize("content", ["notes.txt", "run_manifest.json"])
def test_a_foreign_folder_is_refused_untouched(tiny_project: Path, content: str) -> None:
    folder = tiny_project / "outputs"
    folder.mkdir()
    (folder / content).write_text('{"schema_version": 1, "project_name": "another"}')
    before = tree(folder)
    with pytest.raises(RunFolderError, match=r"not empty|another project"):
        run(tiny_project)
    assert tree(folder) == before


def test_what_a_kill_before_the_manifest_leaves_is_no_hindrance(tiny_project: Path) -> None:
    folder = tiny_project / "outputs"
    (folder / "replay").mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / ".run_manifest.json.4711.tmp").write_text('{"schema')
    with pytest.raises(RunFolderError, match="no run to resume"):
        run(tiny_project, resume=True)
    assert run(tiny_project).exit_code == 0
    assert not list(folder.glob(".*.tmp"))


def test_a_replay_that_can_hold_no_sequence_is_refused_at_its_key(tiny_project: Path) -> None:
    with pytest.raises(ConfigurationError, match="one training sequence has 3") as caught:
        run(tiny_project, "data.buffer_capacity=100", "online_collection.num_envs=50")
    assert "data.buffer_capacity" in (caught.value.where or "")
    assert "data.buffer_capacity=150" in (caught.value.hint or "")
    assert not (tiny_project / "outputs").exists()


def test_sequences_too_short_for_the_model_are_refused_at_their_key(tiny_project: Path) -> None:
    with pytest.raises(ConfigurationError, match="sequences of at least 3 steps") as caught:
        run(tiny_project, "training.sequence_length=2")
    assert "training.sequence_length" in (caught.value.where or "")
    assert not (tiny_project / "outputs").exists()


def test_resume_without_a_run_says_so(tiny_project: Path) -> None:
    with pytest.raises(RunFolderError, match="no run to resume") as caught:
        run(tiny_project, "training.output_dir=a b", resume=True)
    assert str(caught.value.hint).endswith("/a b'")
    assert "--resume" not in str(caught.value.hint)
    assert not (tiny_project / "a b").exists()


def test_one_trainer_a_folder(tiny_project: Path) -> None:
    folder = run(tiny_project).folder
    with (folder / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = tree(folder)
        with pytest.raises(RunFolderError, match="another trainer is at work"):
            run(tiny_project, resume=True)
        assert tree(folder) == before
    run(tiny_project, "training.total_steps=25", resume=True)


@pytest.mark.parametrize("values", [[], ["architecture.vmax=0.1"]])  # below those of noise
def test_random_data_can_run_but_never_counts_as_training(
    tiny_project: Path, values: list[str]
) -> None:
    manifest = read_manifest(run(tiny_project, "data.source=random", *values).folder)
    assert manifest["data_mode"] == "random"
    assert manifest["run_classification"] == "contract_smoke"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_missing_device_degrades_aloud_and_strict_refuses(tiny_project: Path) -> None:
    with pytest.raises(ConfigurationError, match="cuda") as caught:
        run(tiny_project, "training.device=cuda", strict=True)
    assert "--set training.device" in str(caught.value.where)
    said: list[str] = []
    outcome = train_project(tiny_project, overrides=["training.device=cuda"], say=said.append)
    assert any("device_fallback" in line for line in said)
    manifest = read_manifest(outcome.folder)
    assert manifest["degraded_modes"] == ["device_fallback"]
    assert manifest["run_classification"] == "contract_smoke"


def test_an_unknown_environment_writes_nothing(tiny_project: Path) -> None:
    with pytest.raises(EnvironmentSetupError, match="Pendulun"):
        run(tiny_project, "environment=Pendulun-v1")
    assert not (tiny_project / "outputs").exists()


def test_discrete_actions_name_the_family_to_use(tiny_project: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(?i)dreamer"):
        run(tiny_project, "environment=CartPole-v1")
    assert not (tiny_project / "outputs").exists()


def test_a_delegated_backend_is_not_trained_natively(tiny_project: Path) -> None:
    with pytest.raises(ConfigurationError, match="the official TD-MPC2 has no task"):
        run(tiny_project, "training.backend=official_tdmpc2_torch_subprocess")
    assert not (tiny_project / "outputs").exists()


def test_a_failed_run_says_why_in_its_manifest(tiny_project: Path) -> None:
    class Poison(Callback):
        def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            if trainer.step == 12:
                with torch.no_grad():
                    next(trainer.model.parameters()).fill_(math.nan)

    with pytest.raises(TrainingError, match="became nan"):
        run(tiny_project, callbacks=[Poison()])
    manifest = read_manifest(tiny_project / "outputs")
    assert manifest["status"] == "failed"
    assert "nan" in manifest["reason"]
    assert manifest["last_checkpoint"] == "step-000000010"


def children_of(pid: int) -> list[int]:
    files = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for file in files for child in file.read_text().split()]
    return children + [further for child in children for further in children_of(child)]


@pytest.mark.parametrize(
    ("number", "code", "everyone"),
    [(signal.SIGINT, 130, False), (signal.SIGTERM, 143, False), (signal.SIGTERM, 143, True)],
    ids=["SIGINT", "SIGTERM", "SIGTERM to every process"],
)
def test_a_signal_saves_and_tells_the_resume_command(
    tiny_project: Path, number: signal.Signals, code: int, everyone: bool
) -> None:
    command = [sys.executable, "-m", "worldflux", "train", "--steps", "1000000"]
    process = subprocess.Popen(
        [*command, "--set", "training.eval_interval=1000000"],
        cwd=tiny_project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    checkpoints = tiny_project / "outputs" / "checkpoints"
    deadline = time.monotonic() + 300  # a busy machine takes minutes
    while not list(checkpoints.glob("step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    if everyone:  # as Slurm and systemd do
        environments = children_of(process.pid)
        assert environments
        for pid in environments:
            os.kill(pid, number)
        time.sleep(0.5)
    os.killpg(process.pid, number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == code, told
    assert "worldflux train --resume" in told
    assert "Traceback" not in told
    manifest = read_manifest(tiny_project / "outputs")
    assert manifest["status"] == "interrupted"
    steps = [int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*")]
    assert manifest["global_step"] == max(steps)


def test_sigusr1_saves_and_goes_on(tiny_project: Path) -> None:
    class AskAt(Callback):
        def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
            if trainer.step == 7:
                os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.getsignal(signal.SIGUSR1)
    folder = run(tiny_project, callbacks=[AskAt()]).folder
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step-000000007",
        "step-000000010",
        "step-000000020",
    ]
    assert read_manifest(folder)["status"] == "completed"
    assert signal.getsignal(signal.SIGUSR1) is before


def test_dataset_py_of_the_project_makes_the_environment(tiny_project: Path) -> None:
    (tiny_project / "dataset.py").write_text(
        "import gymnasium\n"
        "def make_env(render_mode=None):\n"
        "    return gymnasium.make('Pendulum-v1', g=1.0, max_episode_steps=40)\n"
    )
    outcome = run(tiny_project)
    (evaluation,) = read_rows(outcome.folder / "eval.jsonl")
    assert evaluation["length_mean"] == 40


def test_a_broken_dataset_py_is_told_with_its_path(tiny_project: Path) -> None:
    (tiny_project / "dataset.py").write_text("import no_such_module\n")
    with pytest.raises(WorldFluxError, match=r"dataset\.py cannot be imported"):
        run(tiny_project)


def test_manifests_are_strict_json_and_tell_no_secrets(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-of-4711")
    monkeypatch.setattr(sys, "argv", ["/home/someone/bin/worldflux", "train", "--steps", "20"])
    folder = run(tiny_project).folder

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = (folder / "run_manifest.json").read_text()
    content = json.loads(text, parse_constant=refuse)
    assert content["command"] == ["worldflux", "train", "--steps", "20"]
    assert not any(word in text for word in ("a-secret-of-4711", "WANDB", "someone"))
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert len(line) <= 200 * len(json.loads(line))


def test_a_command_of_python_m_is_recorded_as_it_is_typed(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/worldflux/__main__.py", "train"])
    content = json.loads((run(tiny_project).folder / "run_manifest.json").read_text())
    assert content["command"] == ["python", "-m", "worldflux", "train"]


def test_a_run_ends_where_an_evaluation_reaches_the_asked_return(tiny_project: Path) -> None:
    told: list[str] = []
    solved = ["training.eval_interval=5", "evaluation.stop_at_return=-1e6"]
    outcome = train_project(tiny_project, overrides=solved, say=told.append)
    manifest = read_manifest(outcome.folder)
    assert (outcome.exit_code, outcome.result.step) == (0, 5)
    assert (manifest["status"], manifest["global_step"]) == ("completed", 5)
    assert manifest["stopped_early"] is True
    assert any("evaluation.stop_at_return" in line for line in told)
    verdict = {
        check.name: check.status
        for check in verify_quick(outcome.folder, QuickSettings(episodes=2)).checks
    }
    assert verdict["manifest"] == verdict["files"] == verdict["counters"] == "pass"


def test_a_return_that_is_not_reached_ends_nothing(tiny_project: Path) -> None:
    outcome = run(tiny_project, "training.eval_interval=5", "evaluation.stop_at_return=0.0")
    assert outcome.result.step == 20
    assert read_manifest(outcome.folder)["stopped_early"] is False


def test_what_was_measured_to_be_faster_is_said_and_kept(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "worldflux.training.precision.seconds_of",
        lambda model, config, batch, envs, name: (1.0, 0.5 if name == "bfloat16" else 1.0),
    )
    said: list[str] = []
    folder = train_project(
        tiny_project, overrides=['training.precision="auto"'], say=said.append
    ).folder
    words = "measured: bfloat16 takes 1.00 and 0.50 of float32's time"
    kept = {"learning": "float32", "acting": "bfloat16", "reason": words}
    assert read_manifest(folder)["precision"] == kept
    assert f"precision: updates in float32, actions in bfloat16\n  {words}" in said
    assert open_run(folder).model.acting_dtype is torch.bfloat16


def test_a_run_in_its_own_precision_says_so_in_the_manifest(tiny_project: Path) -> None:
    folder = run(tiny_project, 'training.precision="bfloat16"').folder
    kept = {"learning": "bfloat16", "acting": "bfloat16", "reason": "training.precision"}
    assert read_manifest(folder)["precision"] == kept
