"""Delegated jobs: real processes from submission to a last word, and every way to fail."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from worldflux import create_world_model
from worldflux.backends.jobs import JOB, SUPERVISOR, ProcessIdentity, list_jobs
from worldflux.errors import ConfigurationError, RunFolderError
from worldflux.run_log import read_rows
from worldflux.training import JobHandle, JobStatus, Trainer, TrainingConfig

JAX = "official_dreamerv3_jax_subprocess"
TORCH = "official_tdmpc2_torch_subprocess"


def submit(model: str = "dreamerv3:official_xl", backend: str = JAX, **options: Any) -> JobHandle:
    config = options.pop("config", {})
    handle = create_world_model(model, backend=backend, **options)
    return Trainer(handle, TrainingConfig(backend=backend, **config)).submit()


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def running(**options: Any) -> JobHandle:
    """A job whose program has written its scores and now sleeps."""
    job = submit(arguments=["--fake.sleep", "60"], **options)
    wait_for(lambda: (job.output_dir / "official" / "child").is_file())
    return job


def manifest(job: JobHandle) -> dict[str, Any]:
    return json.loads((job.output_dir / "run_manifest.json").read_text())


def test_dreamerv3_scores_become_the_rows_of_a_run(checkouts: Path) -> None:
    job = submit(environment_steps=400)
    assert job.wait(30) is JobStatus.COMPLETED, job.reason
    rows = list(read_rows(job.output_dir / "eval.jsonl"))
    assert [(row["env_steps"], row["return_mean"]) for row in rows] == [
        (100, 25.0),
        (200, 50.0),
        (300, 75.0),
        (400, 100.0),
    ]
    metrics = list(read_rows(job.output_dir / "metrics.jsonl"))
    assert metrics[0]["train/episode_return"] == 25.0
    assert metrics[1]["train/loss/dyn"] == 1.5
    assert metrics[1]["non_finite"] == ["train/loss/rew"]
    content = manifest(job)
    assert (content["status"], content["global_step"]) == ("completed", 401)
    assert content["best"]["return_mean"] == 100.0
    assert content["parameters"] == 17_137  # as the program says
    assert content["environment"]["id"] == "dm_control/walker-walk-v0"
    assert content["delegated"]["job"] == job.id
    assert any("Agent Step 400" in line for line in job.logs())


def test_tdmpc2_scores_become_the_rows_of_a_run(checkouts: Path) -> None:
    config = {"total_steps": 1500, "seed": 3, "output_dir": "runs/a"}
    job = submit("tdmpc2:official_5m", TORCH, task="cheetah-run", config=config)
    assert job.wait(30) is JobStatus.COMPLETED, job.reason
    rows = list(read_rows(job.output_dir / "eval.jsonl"))
    assert [row["return_mean"] for row in rows] == [10.0, 60.0, 110.0, 160.0]
    returns = [row["train/episode_return"] for row in read_rows(job.output_dir / "metrics.jsonl")]
    assert returns == [30.0, 55.0, 80.0]
    content = manifest(job)
    assert content["environment"]["id"] == "dm_control/cheetah-run-v0"
    assert content["seeds"] == {"run": 3}
    assert "model_size=5" in content["delegated"]["command"]
    assert content["parameters"] == 1_197_745
    assert {row["episodes"] for row in rows} == {10}


def test_what_was_set_reaches_the_program(checkouts: Path) -> None:
    config = {"backend_profile": "debug", "device": "cpu", "seed": 7, "batch_size": 4}
    job = submit(task="atari_pong", config={**config, "learning_rate": 1e-3})
    assert job.wait(30) is JobStatus.COMPLETED, job.reason
    flags = json.loads((job.output_dir / "official" / "config.yaml").read_text())
    assert flags["configs"] == ["atari", "debug"]
    told = {name: flags[name][0] for name in ("task", "seed", "jax.platform", "batch_size")}
    assert told == {"task": "atari_pong", "seed": "7", "jax.platform": "cpu", "batch_size": "4"}
    assert float(flags["agent.opt.lr"][0]) == 1e-3
    assert flags["run.steps"] == ["1000"]  # by itself it would never end
    assert manifest(job)["environment"]["kwargs"] == {"repeat_action_probability": 0.25}


def test_a_debug_run_ends_by_itself_and_does_not_count_as_training(checkouts: Path) -> None:
    config = {"backend_profile": "debug"}
    job = submit("tdmpc2:official_5m", TORCH, config=config, arguments=["eval_episodes=2"])
    assert job.wait(30) is JobStatus.COMPLETED, job.reason
    content = manifest(job)
    assert content["degraded_modes"] == ["debug_profile"]
    assert content["run_classification"] == "contract_smoke"
    rows = list(read_rows(job.output_dir / "eval.jsonl"))
    assert [row["step"] for row in rows][-1] == 3000  # past the steps before its first update
    assert {row["episodes"] for row in rows} == {2}


@pytest.mark.parametrize(
    ("options", "steps"),
    [  # a batch is 16 sequences of 64 steps; 256 or 1024 of them are replayed a step
        ({"task": "dmc_walker_walk"}, 1024 + 400),
        ({"task": "dmc_walker_walk", "obs_shape": (24,)}, 1024 + 100),
        ({"task": "atari_pong"}, 1024 + 3200),
    ],
)
def test_updates_are_told_to_dreamerv3_as_environment_steps(
    checkouts: Path, options: dict[str, Any], steps: int
) -> None:
    job = submit(config={"total_steps": 100}, **options)
    assert job.record["command"][-1] == str(steps)


def test_it_outlives_who_submitted_it_and_is_found_by_id(checkouts: Path) -> None:
    code = f"""
from worldflux import create_world_model
from worldflux.training import Trainer, TrainingConfig
handle = create_world_model("dreamerv3", backend={JAX!r}, arguments=["--fake.sleep", "60"])
print(Trainer(handle, TrainingConfig(backend_profile="official_12m")).submit().id)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    job = JobHandle.find(done.stdout.strip())
    wait_for(lambda: (job.output_dir / "official" / "child").is_file())
    assert job.status is JobStatus.RUNNING
    assert [each.id for each in list_jobs()] == [job.id]
    leader = job.record["program"]["pid"]
    assert os.getpgid(leader) == leader  # a process group of its own
    assert os.getsid(leader) != os.getsid(0)


def test_cancel_ends_every_process_of_the_program(checkouts: Path) -> None:
    job = running()
    pids = [int(pid) for pid in (job.output_dir / "official" / "child").read_text().split()]
    assert job.cancel() is JobStatus.CANCELLED
    wait_for(lambda: not any(ProcessIdentity.of(pid) for pid in pids))
    assert manifest(job)["status"] == "interrupted"
    assert job.cancel() is JobStatus.CANCELLED  # once more does no harm


def test_a_killed_program_failed_and_says_why(checkouts: Path) -> None:
    job = running()
    os.kill(job.record["program"]["pid"], signal.SIGKILL)
    assert job.wait(20) is JobStatus.FAILED
    assert "SIGKILL" in str(job.reason)
    assert manifest(job)["status"] == "failed"
    assert len(list(read_rows(job.output_dir / "eval.jsonl"))) == 4  # its scores are kept


def test_a_killed_supervisor_is_noticed_and_its_program_can_be_ended(checkouts: Path) -> None:
    job = running()
    os.kill(json.loads((job.folder / SUPERVISOR).read_text())["pid"], signal.SIGKILL)
    wait_for(lambda: job.status is JobStatus.FAILED)
    assert "supervisor died" in str(job.reason)
    assert "worldflux jobs cancel" in str(job.reason)
    job.cancel()
    assert ProcessIdentity.of(job.record["program"]["pid"]) is None


def test_a_crash_in_the_first_second_failed_with_its_last_words(checkouts: Path) -> None:
    job = submit(arguments=["--fake.crash", "1"])
    assert job.wait(20) is JobStatus.FAILED
    assert "exit code 1" in str(job.reason)
    assert "ModuleNotFoundError: No module named 'jax'" in str(job.reason)
    assert manifest(job)["reason"] == job.reason


def test_the_reason_is_the_error_not_the_advice_after_it(checkouts: Path) -> None:
    job = submit("tdmpc2:official_5m", TORCH, arguments=["fake=1"])
    assert job.wait(20) is JobStatus.FAILED
    assert str(job.reason).endswith("its last words: AssertionError")


def test_a_supervisor_that_cannot_start_failed_with_its_last_words(
    checkouts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldflux.backends.jobs.SUPERVISOR_MODULE", "worldflux.no_such_module")
    job = submit()
    assert job.wait(20) is JobStatus.FAILED
    assert "No module named worldflux.no_such_module" in str(job.reason)


def test_a_full_disk_failed_and_says_so(checkouts: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine lets nobody mount a small disk")
    try:
        config = {"output_dir": str(disk / "run")}
        job = submit(arguments=["--fake.fill", "1"], environment_steps=5000, config=config)
        assert job.wait(30) is JobStatus.FAILED
        assert "No space left on device" in str(job.reason)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_pid_that_another_process_has_now_is_not_the_job(checkouts: Path) -> None:
    job = submit(environment_steps=100)
    job.wait(20)
    record = json.loads((job.folder / JOB).read_text())
    other = {"pid": os.getpid(), "started": "another start"}
    (job.folder / JOB).write_text(json.dumps({**record, "status": "running", "program": other}))
    (job.folder / SUPERVISOR).write_text(json.dumps(other))
    assert job.status is JobStatus.FAILED
    job.cancel()  # and this process is still here


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("CHECKOUT", "export WORLDFLUX_DREAMERV3_CHECKOUT=PATH"),
        ("PYTHON", "export WORLDFLUX_DREAMERV3_PYTHON=PATH"),
    ],
)
def test_what_is_missing_is_named_with_the_way_to_give_it(
    checkouts: Path, monkeypatch: pytest.MonkeyPatch, missing: str, words: str
) -> None:
    monkeypatch.delenv(f"WORLDFLUX_DREAMERV3_{missing}")
    with pytest.raises(ConfigurationError) as caught:
        submit()
    assert words in str(caught.value)
    assert list_jobs() == []


def test_a_folder_that_is_no_checkout_is_refused(checkouts: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has no dreamerv3/main\.py"):
        submit(checkout=str(tmp_path))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": "dreamerv3:size12m"}, "no profile 'size12m'"),
        ({"config": {"grad_clip": 1.0}}, "does not read grad_clip"),
        (
            {"config": {"total_steps": 10}, "arguments": ["--run.train_ratio", "64"]},
            "depends on --run.train_ratio",
        ),
        ({"tsk": "dmc_walker_walk"}, "did you mean 'task'"),
    ],
)
def test_what_no_program_is_told_is_refused(
    checkouts: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        submit(**change)
    assert words in str(caught.value)


def test_an_output_folder_that_holds_something_is_left_alone(checkouts: Path) -> None:
    Path("outputs").mkdir()
    Path("outputs/mine").write_text("mine")
    with pytest.raises(RunFolderError):
        submit()
    assert [path.name for path in Path("outputs").iterdir()] == ["mine"]


def test_the_delegated_example_of_the_factory_reference_runs_as_written(checkouts: Path) -> None:
    from worldflux import create_world_model
    from worldflux.training import Trainer, TrainingConfig

    handle = create_world_model(
        "dreamerv3:official_xl",
        backend="worldflux_dreamerv3_jax_subprocess",
        device="cuda",
    )

    trainer = Trainer(
        handle,
        TrainingConfig(
            backend="worldflux_dreamerv3_jax_subprocess",
            backend_profile="official_xl",
            device="cuda",
        ),
    )
    job = trainer.submit()

    assert job.wait(30) is JobStatus.COMPLETED, job.reason
    flags = json.loads((job.output_dir / "official" / "config.yaml").read_text())
    assert flags["configs"] == ["dmc_vision", "size200m"]
    assert flags["jax.platform"] == ["cuda"]


def test_a_delegated_trainer_trains_nothing_here(checkouts: Path) -> None:
    trainer = Trainer(create_world_model("dreamerv3:official_xl", backend=JAX))
    with pytest.raises(ConfigurationError, match="runs an official program"):
        trainer.train([])
    with pytest.raises(ConfigurationError, match="a local model is trained here"):
        Trainer(create_world_model("tdmpc2:ci")).submit()


def test_verify_reads_a_delegated_run_like_any_other(checkouts: Path) -> None:
    pytest.importorskip("dm_control")
    from worldflux.verify.quick import QuickSettings, verify_quick

    config = {"total_steps": 3000}
    job = submit("tdmpc2:official_5m", TORCH, task="pendulum-swingup", config=config)
    assert job.wait(30) is JobStatus.COMPLETED, job.reason
    verdict = verify_quick(job.output_dir, QuickSettings(episodes=2))
    found = {check.name: check.status for check in verdict.checks}
    assert found["manifest"] == found["data"] == "pass"
    assert (found["files"], found["model"]) == ("not_applicable", "not_applicable")
    assert found["policy"] == "pass", str(verdict)  # 310 beside random's about 20
    assert any("official program" in warning for warning in verdict.warnings)
    rows = (job.output_dir / "eval.jsonl").read_text().splitlines()
    (job.output_dir / "eval.jsonl").write_text("\n".join(rows[:-1]) + "\n")
    assert not verify_quick(
        job.output_dir, QuickSettings(episodes=2)
    ).passed  # not the scores it ended with
