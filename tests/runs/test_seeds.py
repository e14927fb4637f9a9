"""Many seeds: a process and a folder each, failures apart, interrupted and continued together."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from worldflux.cli.app import command_named, main
from worldflux.errors import ConfigurationError, RunFolderError
from worldflux.progress import SILENT, on_screen
from worldflux.project.manifest import read_manifest
from worldflux.project.run import train_project
from worldflux.runs import processes
from worldflux.runs.processes import Job, run_jobs
from worldflux.runs.seeds import parsed_seeds, train_seeds
from worldflux.verify.run_scores import collect_runs

FAKE = (sys.executable, str(Path(__file__).with_name("fake_train.py")))
PROJECT = 'project_name = "p"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "worldflux.toml").write_text(PROJECT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(processes, "POLL_S", 0.02)
    return tmp_path / "worldflux.toml"


def trained(file: Path, seeds: str, **options: object) -> int:
    return train_seeds(file, parsed_seeds(seeds), screen=SILENT, command=FAKE, **options)[1]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "seeds"), [("3", [0, 1, 2]), ("0,1,7", [0, 1, 7]), ("5,", [5]), (" 2, 1 ", [2, 1])]
)
def test_what_seeds_a_text_names(text: str, seeds: list[int]) -> None:
    assert parsed_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "x", "1-3", "1,1", "-1", "1001", "1,2.5"])
def test_texts_that_name_none(text: str) -> None:
    with pytest.raises(ConfigurationError):
        parsed_seeds(text)


def test_a_run_for_each_seed_and_a_proof_takes_their_parent(project: Path) -> None:
    assert trained(project, "3", jobs=2) == 0
    folders = [project.parent / "outputs" / f"seed-{seed}" for seed in range(3)]
    assert [run.folder for run in collect_runs([project.parent / "outputs"])] == folders
    assert [run.seed for run in collect_runs([project.parent / "outputs"])] == [0, 1, 2]


def test_a_failure_stops_no_other_run_and_ends_with_its_exit_code(
    project: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with on_screen("starting") as screen:
        _, code = train_seeds(project, [13, 1], screen=screen, command=FAKE)
    assert code == 1
    assert read_manifest(project.parent / "outputs" / "seed-1")["status"] == "completed"
    told = capfd.readouterr().err
    assert "1 run of 2 failed:\n  seed-13: exit code 1: this seed is unlucky" in told
    assert "seed-1: completed" in told


def test_an_interrupt_saves_all_and_resume_continues(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "0.5")
    parent = project.parent / "outputs"

    def interrupt() -> None:
        while not all((parent / f"seed-{n}" / "run_manifest.json").is_file() for n in (0, 1)):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert trained(project, "3", jobs=2) == 130
    thread.join()
    assert [read_manifest(parent / f"seed-{n}")["status"] for n in (0, 1)] == ["interrupted"] * 2
    assert not (parent / "seed-2").exists()
    monkeypatch.setenv("FAKE_SECONDS", "0")
    with pytest.raises(RunFolderError, match="already holds seed-0, seed-1"):
        trained(project, "3")
    assert trained(project, "3", jobs=2, flags=["--resume"]) == 0
    assert [run.manifest["status"] for run in collect_runs([parent])] == ["completed"] * 3


def test_resume_auto_starts_the_seeds_without_a_run_and_continues_the_others(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldflux.runs.seeds.train_seeds", partial(train_seeds, command=FAKE))
    parent = project.parent / "brandnew"
    for seeds, others in (("1", []), ("2", [0])):
        before = {n: (parent / f"seed-{n}" / "run_manifest.json").read_text() for n in others}
        with pytest.raises(SystemExit) as exit_:
            main(["train", "--seeds", seeds, "--resume=auto", "--output-dir", "brandnew"])
        assert exit_.value.code == 0
        assert [run.seed for run in collect_runs([parent])] == [*range(int(seeds))]
        for n, manifest in before.items():
            assert (parent / f"seed-{n}" / "run_manifest.json").read_text() == manifest


def interrupted(file: Path, command: Sequence[str]) -> None:
    """Train two seeds at once with a command, and send SIGINT when both have printed something."""

    def interrupt() -> None:
        while sum(log.stat().st_size > 0 for log in file.parent.glob("outputs/*.log")) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with on_screen("starting") as screen:
        _, code = train_seeds(file, [0, 1], jobs=2, screen=screen, command=command)
    thread.join()
    assert code == 130


def test_an_interrupt_before_a_run_began_says_so_and_resume_begins_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/bin/worldflux", "train", "--seeds", "2"])
    interrupted(project, ["sh", "-c", "echo up; exec sleep 60"])
    told = capfd.readouterr().err
    assert "seed-0: stopped before its run began" in told
    assert "interrupted; no run was begun; start them with: worldflux train --seeds 2\n" in told
    assert "saved" not in told
    assert not [*project.parent.glob("outputs/*/")]
    assert trained(project, "2", flags=["--resume"]) == 0
    assert len(collect_runs([project.parent / "outputs"])) == 2


def test_nothing_is_resumed_where_no_seed_was_started(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["worldflux", "train", "--resume", "--seeds", "2"])
    for _ in range(2):
        with pytest.raises(RunFolderError, match="no run to resume") as caught:
            trained(project, "2", flags=["--resume"])
        assert caught.value.hint == "start them: worldflux train --seeds 2"
        assert not [*project.parent.glob("outputs/*")]
        (project.parent / "outputs").mkdir(exist_ok=True)


@pytest.mark.parametrize(("seeds", "named"), [("2", "0,1"), ("7,", "7,")])
def test_one_run_is_not_resumed_where_those_of_seeds_are(
    seeds: str, named: str, project: Path
) -> None:
    assert trained(project, seeds) == 0
    with pytest.raises(RunFolderError, match="no run to resume") as caught:
        train_project(project, resume=True)
    again = f"worldflux train --seeds {named} --resume"
    assert caught.value.hint == f"continue the runs of several seeds: {again}"


def test_a_failure_while_all_stop_is_not_called_saved(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    interrupted(project, ["sh", "-c", "trap 'exit 1' TERM; echo up; while :; do sleep 0.05; done"])
    assert "warning: seed-0: exit code 1" in capfd.readouterr().err


@pytest.mark.parametrize("end", [[], ["--", "."]])
def test_the_command_that_continues_is_the_one_that_was_typed(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    end: list[str],
) -> None:
    tags, settings = ["--tag", "x", "--tag", "two words"], ["--set", "a=1", "--set", "b=1"]
    typed = ["worldflux", "train", *tags, *settings, "--seeds", "13,", *end]
    monkeypatch.setattr(sys, "argv", ["/usr/bin/worldflux", *typed[1:]])
    with on_screen("starting") as screen:
        assert train_seeds(project, [13], screen=screen, command=FAKE)[1] == 1
    told = capfd.readouterr().err.partition("continue them with: ")[2].splitlines()[0]
    words = shlex.split(told)
    assert [word for word in words if word != "--resume"] == typed
    given = command_named("train").make_context("train", words[2:]).params
    assert given["tag"] == ["x", "two words"]
    assert given["set_"] == ["a=1", "b=1"]
    assert given["resume"]


def test_cores_are_shared_and_each_run_has_its_name(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    code = "import os, sys; print(os.environ.get('OMP_NUM_THREADS'), *sys.argv)"
    name = 'logging.name="base"'
    for jobs, threads in ((1, "None"), (3, "2")):
        folder = project.parent / str(jobs)
        train_seeds(
            project,
            [5],
            jobs=jobs,
            overrides=[f"training.output_dir={folder}", name],
            screen=SILENT,
            command=(sys.executable, "-c", code),
        )
        words = (folder / "seed-5.log").read_text().split()
        assert words[0] == threads
        assert words[-2:] == ["--seed", "5"]
        assert {'logging.name="base-seed-5"', 'logging.group="base"'} < set(words)


def test_nothing_starts_where_a_folder_or_a_setting_is_refused(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs = project.parent / "outputs"
    for words in (
        ["--seeds", "2", "--seed", "1"],
        ["--seeds", "2", "--overwrite"],
        ["--seeds", "2", "--resume"],
        ["--seeds", "2", "--set", "training.sed=1"],
        ["--seeds", "99999999999,1"],
    ):
        with pytest.raises(SystemExit) as exit_:
            main(["train", *words])
        assert exit_.value.code == 2, words
        assert not outputs.exists()
    (outputs / "seed-1").mkdir(parents=True)
    (outputs / "seed-1" / "letter.txt").touch()
    with pytest.raises(SystemExit):
        main(["train", "--seeds", "2"])
    assert "seed-1: this folder is not empty and holds no run" in capsys.readouterr().err
    assert [path.name for path in outputs.iterdir()] == ["seed-1"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
def test_a_job_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from worldflux.runs.processes import Job\n"
        "job = Job(Path(sys.argv[1]) / 'a', ['sleep', '60']); job.start({})\n"
        "print(job.process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=-1, stdout=-1, text=True
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(250):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the job outlived its parent")


def test_a_signal_while_a_job_starts_reaches_it(tmp_path: Path) -> None:
    class OneJob:
        """Interrupted between `next` and the start of its job."""

        def __init__(self) -> None:
            self.given, self.codes = 0, list[int]()

        def next(self) -> Job | None:
            self.given += 1
            os.kill(os.getpid(), signal.SIGTERM)
            return Job(tmp_path / "a", ["sleep", "60"]) if self.given == 1 else None

        def is_exhausted(self) -> bool:
            return False

        def watch(self, job: Job) -> None:
            pass

        def ended(self, job: Job, code: int, stopping: bool) -> None:
            assert stopping
            self.codes.append(code)

        def progress(self) -> tuple[int, list[str]]:
            return 0, []

    source = OneJob()
    assert run_jobs(source, 1, SILENT) == 143
    assert source.codes == [143]
