"""One run folder, as the page sees it: live, ended, stale, damaged and large."""

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

from worldflux.dashboard import run_reader
from worldflux.dashboard.discovery import RunCollection, find_runs, require_runs
from worldflux.dashboard.run_reader import RunReader
from worldflux.errors import RunFolderError

HOLDER = """
import fcntl, sys, time
lock = open(sys.argv[1], "w")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def reader(writer: Any, monkeypatch: pytest.MonkeyPatch) -> RunReader:
    monkeypatch.setattr(run_reader, "SECONDS_BETWEEN_READS", 0.0)
    return RunReader("0123456789ab", writer.folder)


def test_a_live_run_is_read_as_it_grows(writer: Any, reader: RunReader) -> None:
    assert reader.summary()["status"] == "waiting"
    writer.manifest(status="running")
    with writer.locked():
        for step in range(100, 1100, 100):
            writer.row(step, **{"loss/a": 1.0 / step})
        summary = reader.summary()
        assert summary["status"] == "running"
        assert (summary["step"], summary["env_steps"]) == (1000, 2000)
        assert summary["updates_per_s"] == pytest.approx(50.0)
        assert summary["time_left_s"] == pytest.approx(180.0)
        assert summary["memory_bytes"] > 1 << 20
        writer.row(1100, **{"loss/a": 0.5})
        writer.raw("metrics.jsonl", '{"step": 1200, "lo')
        series = json.loads(reader.series())
        assert series["series"]["loss/a"]["step"][-1] == 1100
        writer.raw("metrics.jsonl", 'ss/a": 0.25}\n')
        series = json.loads(reader.series())
        assert series["series"]["loss/a"]["value"][-2:] == [0.5, 0.25]


def test_evaluations_best_baseline_and_messages(writer: Any, reader: RunReader) -> None:
    writer.manifest(status="failed", reason="loss is NaN", degraded_modes=["device_fallback"])
    writer.row(10, **{"loss/a": float("nan")})
    for step, mean in ((100, -900.0), (200, -300.0), (300, -400.0)):
        writer.evaluation(step, mean)
    (writer.folder / "checkpoints" / "step-000000200").mkdir(parents=True)
    detail = reader.detail()
    assert detail["status"] == "failed"
    assert detail["best_evaluation"]["step"] == 200
    assert detail["last_evaluation"]["random_return_mean"] == -1200.0
    texts = [message["text"] for message in detail["messages"]]
    assert texts[:3] == [
        "failed: loss is NaN",
        "degraded: device_fallback",
        "loss/a was NaN or infinite 1 times, last at update 10",
    ]
    assert "checkpoint step-000000200 saved" in texts
    assert "evaluation at update 200: return -300 ± 2.5 over 5 episodes, the best so far" in texts
    assert ("environment.id", "Pendulum-v1") in detail["configuration"]


def test_the_detail_version_changes_with_what_the_detail_shows(
    writer: Any, reader: RunReader
) -> None:
    writer.manifest()
    first = reader.summary()["detail_version"]
    assert reader.summary()["detail_version"] == first
    writer.video("a.gif")
    second = reader.summary()["detail_version"]
    writer.evaluation(10, 1.0)
    assert len({first, second, reader.summary()["detail_version"]}) == 3


@pytest.mark.parametrize("_attempt", range(5))
def test_a_killed_run_is_stale(writer: Any, reader: RunReader, _attempt: int) -> None:
    writer.manifest(status="running")
    command = [sys.executable, "-c", HOLDER, str(writer.folder / ".lock")]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert reader.summary()["status"] == "running"
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert reader.summary()["status"] == "stale"


def test_an_ended_run_leaves_its_lock_alone(
    writer: Any, reader: RunReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.manifest(status="interrupted")

    def refuse(folder: Path) -> None:
        raise AssertionError(f"asked for the lock of {folder}")

    monkeypatch.setattr(run_reader, "find_trainer", refuse)
    assert reader.summary()["status"] == "interrupted"


def test_a_resumed_run_replaces_the_rows_it_writes_again(writer: Any, reader: RunReader) -> None:
    for step in (100, 200, 300):
        writer.row(step, a=1.0)
        writer.evaluation(step, 5.0)
    reader.series()
    kept = (writer.folder / "metrics.jsonl").read_text().splitlines(keepends=True)[:1]
    (writer.folder / "new").write_text("".join(kept))
    os.replace(writer.folder / "new", writer.folder / "metrics.jsonl")
    (writer.folder / "eval.jsonl").unlink()
    writer.row(250, a=2.0)
    answer = json.loads(reader.series())
    assert answer["series"]["a"]["step"] == [100, 250]
    assert answer["evaluations"] == []


def test_a_damaged_manifest_keeps_the_last_good_one(writer: Any, reader: RunReader) -> None:
    writer.manifest(model="tdmpc2:ci")
    reader.summary()
    (writer.folder / "run_manifest.json").write_text('{"status": "comp')
    summary = reader.summary()
    assert summary["model"] == "tdmpc2:ci"
    assert summary["manifest_problem"] == "run_manifest.json is not a JSON object"


@pytest.mark.parametrize(
    "text",
    [
        '{"status": 5, "model": [1], "degraded_modes": "x", "environment": 3}',
        '{"training_config": {"total_steps": "9"}, "environment": {"id": 7}}',
        '{"global_step": NaN, "wall_s": 1e999, "parameters": true, "status": "running"}',
        '{"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {"i": {}}}}}}}}}}',
    ],
)
def test_a_foreign_manifest_does_no_harm(writer: Any, reader: RunReader, text: str) -> None:
    (writer.folder / "run_manifest.json").write_text(text)
    json.dumps(reader.detail(), allow_nan=False)


def test_videos_are_listed_by_safe_names_only(writer: Any, reader: RunReader) -> None:
    writer.manifest()
    for name in ("step-1.gif", "b.mp4", ".hidden.gif", "x.html", "<b>.gif", "a b.gif"):
        writer.video(name)
    (writer.folder / "videos" / "link.gif").symlink_to("/etc/hostname")
    assert [video["name"] for video in reader.detail()["videos"]] == ["b.mp4", "step-1.gif"]


def test_a_hundred_thousand_rows_answer_small_and_soon(writer: Any, reader: RunReader) -> None:
    with (writer.folder / "metrics.jsonl").open("w") as file:
        for step in range(100_000):
            values = ", ".join(f'"loss/m{k}": {(step * 37 + k) % 101 / 7:.6f}' for k in range(6))
            file.write(f'{{"step": {step}, "env_steps": {step}, "wall_s": {step}.5, {values}}}\n')
    began = time.perf_counter()
    answer = reader.series()
    first_s = time.perf_counter() - began
    assert len(answer) < 1 << 20
    assert first_s < 6.0
    loaded = json.loads(answer)
    assert loaded["sampled"] is True or loaded["rows"] == 100_000
    began = time.perf_counter()
    writer.row(100_001, **{"loss/m0": 1.0})
    assert json.loads(reader.series())["series"]["loss/m0"]["step"][-1] == 100_001
    assert time.perf_counter() - began < 0.5


def test_a_huge_log_is_sampled_and_then_followed(writer: Any, reader: RunReader) -> None:
    line = '{"step": %9d, "env_steps": 1, "wall_s": 1.0, "loss/a": 0.5, "pad": "%s"}\n'
    with (writer.folder / "metrics.jsonl").open("w") as file:
        for step in range(100_000):
            file.write(line % (step, "x" * 300))
    answer = json.loads(reader.series())
    assert answer["sampled"]
    steps = answer["series"]["loss/a"]["step"]
    assert (steps[0], steps[-1]) == (0, 99_999)
    writer.row(100_000, **{"loss/a": 1.0})
    assert json.loads(reader.series())["series"]["loss/a"]["step"][-1] == 100_000


def test_runs_are_found_in_projects_and_folders_of_them(tmp_path: Path, new_writer: Any) -> None:
    for name in (
        "one/outputs",
        "two/outputs",
        "two/other",
        "deep/a/b/c/outputs",
        ".hidden/outputs",
    ):
        new_writer(tmp_path / "all" / name).manifest()
    (tmp_path / "outside").mkdir()
    new_writer(tmp_path / "outside" / "run").manifest()
    (tmp_path / "all" / "link").symlink_to(tmp_path / "outside")
    found = find_runs(tmp_path / "all")
    expected = ["one/outputs", "two/other", "two/outputs"]
    assert [str(run.relative_to(tmp_path / "all")) for run in found] == expected
    readers = RunCollection([tmp_path / "all"]).readers()
    assert [reader.label for reader in readers] == ["one", "other", "two"]
    assert find_runs(tmp_path / "all" / "one") == [tmp_path / "all" / "one" / "outputs"]


def test_a_place_without_runs_is_told(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run in"):
        require_runs([tmp_path])
    with pytest.raises(RunFolderError, match="there is no folder"):
        require_runs([tmp_path / "missing"])
