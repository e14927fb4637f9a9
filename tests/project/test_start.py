"""How a run starts: after starts that failed, over an old run, or wherever it left off."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from worldflux.cli.app import main
from worldflux.errors import ConfigurationError, EnvironmentFault, RunFolderError, StorageError
from worldflux.layout import LOCK
from worldflux.progress import lasting_output
from worldflux.project.manifest import read_manifest
from worldflux.project.run import RunOutcome, train_project
from worldflux.project.run_folder import RunFolder
from worldflux.project.signals import graceful_stop
from worldflux.training.checkpoints import CheckpointStore

SHORT = (
    "training.total_steps=2",
    "training.save_interval=2",
    "training.eval_interval=2",
    "online_collection.warmup_transitions=10",
    "evaluation.episodes=1",
    "environment_kwargs.max_episode_steps=8",
)
BREAKS = """
from pathlib import Path

import gymnasium

class Breaking(gymnasium.Wrapper):
    def step(self, action):
        if (Path(__file__).parent / "{name}").exists():
            raise OSError("the simulator has no licence")
        return self.env.step(action)

def make_env(render_mode=None, **arguments):
    return Breaking(gymnasium.make("Pendulum-v1", render_mode=render_mode, **arguments))
"""


def run(root: Path, *overrides: str, said: list[str] | None = None, **options: Any) -> RunOutcome:
    lines: list[str] = [] if said is None else said
    return train_project(root, overrides=(*SHORT, *overrides), say=lines.append, **options)


def _broken_environment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "dataset.py").write_text(BREAKS.format(name="broken"))
    (root / "broken").touch()
    with pytest.raises(EnvironmentFault, match="no licence"):
        run(root)
    (root / "broken").unlink()


def _full_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **options: Any) -> Path:
        raise StorageError("cannot be written: No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointStore, "save", full)
        with pytest.raises(StorageError):
            run(root)
    assert read_manifest(root / "outputs")["status"] == "failed"


def _killed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was killed between two log rows and its first checkpoint."""
    folder = root / "outputs"
    folder.mkdir()
    manifest = {"schema_version": 1, "status": "running", "project_name": "tiny"}
    (folder / "run_manifest.json").write_text(json.dumps(manifest))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    (folder / LOCK).write_text('{"pid": 1')


@pytest.mark.parametrize("fail", [_broken_environment, _full_disk, _killed])
def test_a_start_that_failed_before_its_first_checkpoint_blocks_no_other(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, fail: Any
) -> None:
    fail(tiny_project, monkeypatch)
    left = (tiny_project / "outputs" / "run_manifest.json").exists()
    said: list[str] = []
    outcome = run(tiny_project, said=said)
    assert read_manifest(outcome.folder)["status"] == "completed"
    if fail is _killed:
        assert any(line.endswith("outputs.1") for line in said), said
        moved = tiny_project / "outputs.1" / "metrics.jsonl"
        assert moved.read_text() == '{"step": 1}\n'
    elif left:
        assert any("first checkpoint" in line or "outputs.1" in line for line in said), said


def test_a_folder_that_was_there_is_kept_when_nothing_begins(tmp_path: Path) -> None:
    for was_there in (True, False):
        folder = tmp_path / str(was_there)
        if was_there:
            folder.mkdir()
        with RunFolder(folder, "tiny", resume=False):
            assert (folder / LOCK).exists()
        assert folder.exists() == was_there


def test_overwrite_keeps_the_old_run_as_a_copy(tiny_project: Path) -> None:
    first = read_manifest(run(tiny_project).folder)
    with pytest.raises(RunFolderError, match="already holds a run") as caught:
        run(tiny_project)
    assert "--overwrite" in str(caught.value.hint)
    with pytest.raises(ConfigurationError, match="either resumed or started over"):
        run(tiny_project, resume=True, overwrite=True)
    said: list[str] = []
    for number in (1, 2):
        run(tiny_project, "training.seed=1", overwrite=True, said=said)
        assert any(line.endswith(f"outputs.{number}") for line in said)
    assert read_manifest(tiny_project / "outputs.1") == first
    assert read_manifest(tiny_project / "outputs.2")["seeds"]["run"] == 1
    assert json.loads((tiny_project / "outputs" / LOCK).read_text())["pid"] == os.getpid()


def test_an_overwrite_that_is_refused_moves_nothing(tiny_project: Path) -> None:
    first = read_manifest(run(tiny_project).folder)
    (tiny_project / "dataset.py").write_text(BREAKS.format(name="dataset.py"))
    with pytest.raises(EnvironmentFault):
        run(tiny_project, overwrite=True)
    assert read_manifest(tiny_project / "outputs") == first
    assert not (tiny_project / "outputs.1").exists()


def test_the_folder_behind_a_link_is_moved_and_not_the_link(tiny_project: Path) -> None:
    scratch = tiny_project.parent / "scratch"
    scratch.mkdir()
    (tiny_project / "outputs").symlink_to(scratch)
    run(tiny_project)
    run(tiny_project, overwrite=True)
    assert (tiny_project / "outputs").is_symlink()
    assert (scratch / "run_manifest.json").is_file()
    assert (scratch.parent / "scratch.1" / "run_manifest.json").is_file()


def test_resume_auto_starts_continues_and_ends(
    tiny_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [word for setting in SHORT for word in ("--set", setting)]
    command = ["train", str(tiny_project), *flags, "--seed", "3", "--resume=auto"]
    told = []
    for further in ([], ["--steps", "3"], []):
        with pytest.raises(SystemExit) as ended:
            main([*command, *further])
        assert ended.value.code == 0
        told.append(capsys.readouterr().err)
        if further:
            command += further
    assert "resuming at update 2 of 3" in told[1]
    assert "complete at update 3" in told[2]
    manifest = read_manifest(tiny_project / "outputs")
    assert manifest["seeds"]["run"] == 3
    assert [(s["from_update"], s["to_update"]) for s in manifest["sessions"]] == [(0, 2), (2, 3)]


def _started(words: list[str], folder: Path, **streams: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "worldflux", *words]
    return subprocess.Popen(command, cwd=folder, text=True, start_new_session=True, **streams)


def test_a_closed_terminal_saves_and_the_command_it_prints_continues_that_run(
    tiny_project: Path,
) -> None:
    flags = [word for setting in SHORT for word in ("--set", setting)]
    place = tiny_project.parent
    options = ["--config", str(tiny_project), "--output-dir", "a run/x 7", "--steps", "1000000"]
    words = ["train", *options, *flags, "--set", "training.eval_interval=1000000"]
    for number, code in ((signal.SIGHUP, 129), (signal.SIGTERM, 143)):
        process = _started(words, place, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        assert process.stderr is not None
        ready = "resuming at update |training +\\d+/"  # the header names the training too
        seen = []
        for line in process.stderr:
            seen.append(line)
            if re.match(ready, line):
                break
        os.kill(process.pid, number)
        rest = process.stderr.read()
        assert process.wait(timeout=120) == code, "".join(seen) + rest
        (printed,) = [line for line in rest.splitlines() if line.startswith("continue with: ")]
        words = shlex.split(printed.removeprefix("continue with: "))[1:]
        assert words == ["train", "--resume", "--config", "project/worldflux.toml",
                         "--output-dir", "a run/x 7"]  # fmt: skip
        assert read_manifest(place / "a run" / "x 7")["status"] == "interrupted"


def test_a_pipe_without_a_reader_costs_the_progress_and_not_the_run(tiny_project: Path) -> None:
    flags = [word for setting in SHORT for word in ("--set", setting)]
    read, written = os.pipe()
    process = _started(["train", *flags], tiny_project, stdout=written, stderr=written)
    os.close(written)
    os.read(read, 1)
    os.close(read)
    assert process.wait(timeout=120) == 0
    manifest = read_manifest(tiny_project / "outputs")
    assert manifest["status"] == "completed"
    assert any("output_lost: stderr" in warning for warning in manifest["warnings"])


def test_what_is_printed_into_a_closed_pipe_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    read, written = os.pipe()
    os.close(read)
    told: list[str] = []
    with os.fdopen(written, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with lasting_output() as lost:
            with lasting_output():
                print("one", file=sys.stderr, flush=True)
            lost.tell(told.append)
            print("two", file=sys.stderr, flush=True)
        assert sys.stderr is stream
    assert told == ["stderr"]
    monkeypatch.setattr(sys, "stdout", None)  # closed by whoever started us
    with lasting_output():
        print("three", flush=True)
        assert sys.stdout.fileno() > 2


def test_nohup_and_threads_keep_their_signals() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with graceful_stop(lambda: None):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) not in (signal.SIG_DFL, signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGHUP, before)
    entered: list[bool] = []

    def in_a_thread() -> None:
        with graceful_stop(lambda: None) as stop:
            entered.append(stop.signal_number is None)

    thread = threading.Thread(target=in_a_thread)
    thread.start()
    thread.join()
    assert entered == [True]


def test_a_signal_before_training_leaves_nothing(tiny_project: Path) -> None:
    def hang_up(line: str) -> None:
        if line.startswith("needs:"):
            os.kill(os.getpid(), signal.SIGHUP)

    outcome = train_project(tiny_project, overrides=SHORT, say=hang_up)
    assert outcome.exit_code == 129
    assert not (tiny_project / "outputs").exists()


@pytest.mark.parametrize("source", ["gym", "random"])
def test_sequences_may_be_longer_than_episodes_of_noise(source: str, tiny_project: Path) -> None:
    long = ("training.sequence_length=60", "environment_kwargs.max_episode_steps=70")
    data = (f"data.source={source}", "data.buffer_capacity=2000")
    run(tiny_project, *long, *data, "online_collection.warmup_transitions=150")


@pytest.mark.parametrize(
    ("assignment", "instead"),
    [
        ("training.model_overrides.horizon=2", r"\[architecture\]"),
        ("training.backend_profile=official_12m", "training.backend"),
    ],
)
def test_settings_that_a_run_does_not_read_are_refused(
    assignment: str, instead: str, tiny_project: Path
) -> None:
    with pytest.raises(ConfigurationError, match=instead):
        run(tiny_project, assignment)
    assert not (tiny_project / "outputs").exists()
