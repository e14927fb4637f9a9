"""Jobs of a cluster: the script, what is refused, and that a preempted job saves first."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worldflux.cli.app import main
from worldflux.project.slurm import TrainJob

pytest.importorskip("submitit")

PROJECT = """
project_name = "two shards"
environment = "Pendulum-v1"
model = "tdmpc2:ci"

[distributed]
shards = 2
"""
SAVES_WHEN_STOPPED = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).touch(), sys.exit(143)))
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "worldflux.toml").write_text(PROJECT)
    return tmp_path


def submitted(root: Path, *words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["submit", str(root), *words])
    return int(ended.value.code or 0)


def test_the_script_asks_for_what_was_wanted(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--nodes", "2", "--gpus", "1", "--partition", "gpu", "--sbatch", "qos=high")
    assert submitted(root, "--slurm", "--dry-run", *words) == 0
    script = capsys.readouterr().out
    for option in (
        *("nodes=2", "ntasks-per-node=1", "gpus-per-node=1", "partition=gpu", "qos=high"),
        *("requeue", "signal=USR2@120", "open-mode=append", "time=240", "job-name=two-shards"),
    ):
        assert f"#SBATCH --{option}\n" in script
    assert "srun " in script
    assert not (root / "slurm").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--slurm", "--nproc", "3"), "cannot host 2 shards evenly"),
        ((), "choose where to submit"),
        (("--slurm", "--sbatch", "qos"), "expected NAME=VALUE"),
        (("--slurm",), "no SLURM cluster here"),
    ],
)
def test_a_job_that_cannot_be_is_refused(
    root: Path, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submitted(root, *words) == 2
    assert message in capsys.readouterr().err


def test_a_preempted_job_saves_and_is_queued_again_as_it_was(tmp_path: Path) -> None:
    job, saved = TrainJob(["--config", "p"]), tmp_path / "saved"
    command = [sys.executable, "-c", SAVES_WHEN_STOPPED, str(saved)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        job._process = process
        again = job.checkpoint()
    assert process.returncode == 143
    assert saved.exists()
    assert again.function.arguments == ["--config", "p"]
