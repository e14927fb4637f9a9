"""Runs over shards: what is refused, and that no number of processes and no kill changes them."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed

from worldflux.cli.app import main
from worldflux.cli.train import without_option
from worldflux.configuration_hash import decides_result
from worldflux.errors import ConfigurationError, TrainingError
from worldflux.project import processes
from worldflux.project.key_roles import why_fixed
from worldflux.project.loader import load_project
from worldflux.project.manifest import read_manifest
from worldflux.project.processes import (
    Processes,
    end_with_launcher,
    nproc_option,
    started_by,
)
from worldflux.project.run import train_project
from worldflux.project.sharding import require_divisible, shard_seed

PROJECT = """
project_name = "p"
environment = "Pendulum-v1"
model = "tdmpc2:ci"

[distributed]
shards = 2
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "worldflux.toml").write_text(PROJECT)
    return tmp_path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("distributed.shards=3", "2 processes cannot host 3 shards evenly"),
        ("distributed.shards=1", "2 processes cannot host 1 shards evenly"),
        ("data.source='random'", "shards collect their own data"),
        ("training.gradient_accumulation_steps=2", "shards accumulate gradients already"),
        ("training.compile=true", "losses over shards are not compiled"),
        ("evaluation.environment='training'", "not played in the training environments"),
    ],
)
def test_settings_that_shards_cannot_keep_are_refused(
    root: Path, monkeypatch: pytest.MonkeyPatch, override: str, message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match=message):
        require_divisible(load_project(root, [override]), Processes())


def test_a_batch_that_cannot_be_divided_is_refused_before_anything_is_written(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="7 sequences cannot be divided among 2") as caught:
        train_project(root, overrides=["training.batch_size=7"], say=lambda line: None)
    assert caught.value.hint == "worldflux train --set training.batch_size=8"
    assert not (root / "outputs").exists()


def test_the_number_of_shards_is_part_of_the_result_and_that_of_processes_is_not() -> None:
    assert why_fixed("distributed.shards")
    assert decides_result("distributed.shards")
    assert not decides_result("distributed.timeout_s")
    seeds = {shard_seed(42, shard) for shard in range(64)}
    assert len(seeds) == 64
    assert shard_seed(42, 0) == 42


def test_the_command_that_continues_names_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert without_option(["a", "--nproc", "2", "--nproc=4", "b"], "--nproc") == ["a", "b"]
    assert (started_by(), nproc_option()) == (["worldflux"], [])
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert started_by() == ["torchrun", "--nproc-per-node", "2", "-m", "worldflux"]
    monkeypatch.setenv("WORLDFLUX_NPROC", "4")
    assert (started_by(), nproc_option()) == (["worldflux"], ["--nproc", "4"])


def test_a_hint_of_several_processes_starts_as_many(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("WORLDFLUX_NPROC", "3")
    with pytest.raises(ConfigurationError) as caught:
        require_divisible(load_project(root), Processes())
    assert caught.value.hint == "worldflux train --nproc 3 --set distributed.shards=3"


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_when_all_processes_are_killed_the_command_continues_this_run(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    resume: list[str],
) -> None:
    killed = ["sh", "-c", "kill -9 $$"]
    monkeypatch.setattr(processes, "_started", lambda *given: subprocess.Popen(killed))
    outputs = root / "two words"
    words = ["--config", str(root), "--output-dir", str(outputs), "--nproc", "2", "--strict"]
    with pytest.raises(SystemExit) as exit_:
        main(["train", *words, *resume])
    assert exit_.value.code == 1
    told = capsys.readouterr().err.partition("what was saved is intact: ")[2]
    place = ["--config", str(root / "worldflux.toml"), "--output-dir", str(outputs)]
    again = ["worldflux", "train", "--resume", "--nproc", "2", *place, "--strict"]
    assert shlex.split(told) == again


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def until(true: Callable[[], object], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(true())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_processes_save_and_end_when_their_launcher_is_killed(tiny_project: Path) -> None:
    words = [sys.executable, "-m", "worldflux", "train", "--nproc", "2", "--steps", "100000"]
    for setting in ("distributed.shards=2", "training.log_interval=1", "evaluation.episodes=0"):
        words += ["--set", setting]
    started = subprocess.Popen(words, cwd=tiny_project, stdin=-3, stdout=-3, stderr=-3)
    outputs, children = (
        tiny_project / "outputs",
        Path(f"/proc/{started.pid}/task/{started.pid}/children"),
    )
    try:
        assert until((outputs / "metrics.jsonl").is_file, 90)
        ranks = [int(pid) for pid in children.read_text().split()]
    finally:
        started.kill()
        started.wait()
    try:
        assert len(ranks) == 2
        assert until(lambda: not any(map(is_alive, ranks)), 30), "they outlived their launcher"
    finally:
        for pid in filter(is_alive, ranks):
            os.kill(pid, signal.SIGKILL)
    manifest = read_manifest(outputs)
    assert manifest["status"] == "interrupted"
    assert (outputs / "checkpoints" / manifest["final_checkpoint"]).is_dir()


def test_processes_of_torchrun_end_with_its_agent() -> None:
    rank = (
        "import signal, time; from worldflux.project.processes import end_with_launcher\n"
        "end_with_launcher(); print('up', flush=True); signal.pause()"
    )
    agent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {rank!r}])"
    environment = {**os.environ, "TORCHELASTIC_RUN_ID": "none"}
    started = subprocess.Popen([sys.executable, "-c", agent], stdout=-1, env=environment)
    assert started.stdout is not None
    assert started.stdout.readline() == b"up\n"
    started.kill()
    started.wait()
    ended, _, _ = select.select([started.stdout], [], [], 30)  # the rank has the pipe, too
    assert ended, "it outlived its agent"
    assert started.stdout.read() == b""
    started.stdout.close()


def test_processes_started_by_hand_may_outlive_their_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLDFLUX_LAUNCHER", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    before = threading.active_count()
    end_with_launcher.__wrapped__()
    assert threading.active_count() == before


def test_two_processes_killed_and_resumed_as_one_end_as_if_nothing_had_happened() -> None:
    """The short form of `make torture-shards`."""
    script = Path(__file__).parents[1] / "torture" / "shards.py"
    words = ["--family", "tdmpc2", "--shards", "2", "--trials", "1", "--seed", "21"]
    done = subprocess.run(
        [sys.executable, str(script), *words], capture_output=True, text=True, check=False
    )
    assert "tdmpc2: 1 of 1 ended the same after 1 SIGKILLs" in done.stdout, (
        done.stdout + done.stderr
    )


def test_processes_that_gloo_does_not_connect_try_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[float] = []

    def connects(backend: str, *, timeout: timedelta, **how: object) -> None:
        tries.append(timeout.total_seconds())
        if len(tries) < 2:
            raise RuntimeError("timed out connecting")

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(torch.distributed, "init_process_group", connects)
    monkeypatch.setattr(torch.distributed, "PrefixStore", lambda name, store: store)
    processes = Processes()
    processes.join(600, cuda=False)
    assert tries == [8.0, 8.0]  # gloo waits five times as long
    tries[:] = []
    monkeypatch.setattr(torch.distributed, "init_process_group", fails_to_connect)
    with pytest.raises(TrainingError, match="do not meet: nobody there"):
        processes.join(600, cuda=False)


def fails_to_connect(backend: str, **how: object) -> None:
    raise RuntimeError("nobody there")
