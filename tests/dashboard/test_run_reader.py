"""One run folder, as the page sees it: live, ended, stale, damaged and large."""

from __future__ import annotations

import base64
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldflux.configuration_hash import configuration_of
from worldflux.dashboard import run_reader
from worldflux.dashboard.discovery import RunCollection, find_runs, require_runs
from worldflux.dashboard.run_reader import RunReader
from worldflux.dashboard.settings import group_of
from worldflux.errors import RunFolderError

EVIDENCE = Path(__file__).parents[2] / "docs/evidence/tdmpc2-cup-catch/inputs"

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
        assert steps_of(reader, "loss/a")[-1] == 1100
        writer.raw("metrics.jsonl", 'ss/a": 0.25}\n')
        assert values_of(reader, "loss/a")[-2:] == [0.5, 0.25]


def steps_of(reader: RunReader, name: str) -> list[float]:
    return floats(reader.series([name])["axes"]["step"], "<f8")


def values_of(reader: RunReader, name: str) -> list[float]:
    return floats(reader.series([name])["metrics"][name]["mean"], "<f4")


def floats(packed: str, kind: str) -> list[float]:
    numbers: list[float] = np.frombuffer(base64.b64decode(packed), kind).tolist()
    return numbers


def test_a_heartbeat_tells_phase_and_time_left(writer: Any, reader: RunReader) -> None:
    writer.manifest(status="running")
    with writer.locked():
        assert reader.summary()["phase"] == "measuring"
        beat = {"phase": "collecting", "time": time.time() - 10, "step": 7, "env_steps": 900}
        (writer.folder / "heartbeat.json").write_text(json.dumps({**beat, "left_s": 100.0}))
        summary = reader.summary()
        assert (summary["phase"], summary["step"], summary["env_steps"]) == ("collecting", 7, 900)
        # It does not change while the trainer evaluates; the time left does.
        assert summary["time_left_s"] == pytest.approx(90, abs=2)
        (writer.folder / "heartbeat.json").write_text("{")
        assert reader.summary()["time_left_s"] is None
    assert (reader.summary()["status"], reader.summary()["phase"]) == ("stale", None)


def test_a_removed_folder_is_said_and_what_was_read_stays(writer: Any, reader: RunReader) -> None:
    writer.manifest()
    writer.row(10, a=1.0)
    writer.evaluation(10, -3.0)
    reader.summary()
    shutil.rmtree(writer.folder)
    summary = reader.summary()
    assert (summary["status"], summary["step"], summary["model"]) == ("gone", 10, "tdmpc2:ci")
    assert summary["last_evaluation"]["return_mean"] == -3.0


def test_of_a_long_log_nobody_looks_at_only_the_end_is_read(
    writer: Any, reader: RunReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_reader, "SUMMARY_READ_BYTES", 10_000)
    for step in range(1, 1001):
        writer.row(step, a=float(step))
    assert reader.summary()["step"] == 1000
    assert reader.summary()["updates_per_s"] == pytest.approx(50)
    assert reader._curves.used == 0
    assert steps_of(reader, "a")[-1] == 1000
    assert len(steps_of(reader, "a")) > 250


def test_seeds_are_one_group_and_what_differs_is_told(new_writer: Any, tmp_path: Path) -> None:
    for seed, rate in ((1, 0.1), (2, 0.1), (3, 0.2)):
        training = {"total_steps": 10, "learning_rate": rate, "seed": seed, "output_dir": str(seed)}
        run = new_writer(tmp_path / "all" / f"run{seed}")
        run.manifest(seeds={"run": seed, "evaluation": seed + 9}, training_config=training)
    runs = RunCollection([tmp_path / "all"])
    one, two, three = runs.summaries()
    assert one["group"] == two["group"] != three["group"]
    assert [run["seed"] for run in (one, two, three)] == [1, 2, 3]
    assert one["differs"] == {"training_config.learning_rate": "0.1", "seeds.run": "1"}
    assert three["differs"] == {"training_config.learning_rate": "0.2", "seeds.run": "3"}


def test_seeds_over_an_upgrade_are_one_group() -> None:
    manifest = json.loads((EVIDENCE / "000" / "run_manifest.json").read_text())
    upgraded = copy.deepcopy(manifest)
    upgraded["training_config"]["precision"] = "float32"
    assert group_of(upgraded) == group_of(manifest) == configuration_of(manifest)[:8]


def test_evaluations_best_baseline_and_messages(writer: Any, reader: RunReader) -> None:
    cause = {"cause": "reward-rare", "sentence": "2 of 600 steps had another reward"}
    told = {"degraded_modes": ["device_fallback"], "diagnosis": [cause, "damaged"]}
    writer.manifest(status="failed", reason="loss is NaN", **told)
    writer.row(10, **{"loss/a": float("nan")})
    for step, mean in ((100, -900.0), (200, -300.0), (300, -400.0)):
        writer.evaluation(step, mean)
    (writer.folder / "checkpoints" / "step-000000200").mkdir(parents=True)
    detail = reader.detail()
    assert detail["status"] == "failed"
    assert detail["best_evaluation"]["step"] == 200
    assert detail["last_evaluation"]["random_return_mean"] == -1200.0
    texts = [message["text"] for message in detail["messages"]]
    assert texts[:4] == [
        "failed: loss is NaN",
        "degraded: device_fallback",
        "loss/a was NaN or infinite 1 times, last at update 10",
        "reward-rare: 2 of 600 steps had another reward",
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
    reader.series([])
    kept = (writer.folder / "metrics.jsonl").read_text().splitlines(keepends=True)[:1]
    (writer.folder / "new").write_text("".join(kept))
    os.replace(writer.folder / "new", writer.folder / "metrics.jsonl")
    (writer.folder / "eval.jsonl").unlink()
    writer.row(250, a=2.0)
    assert steps_of(reader, "a") == [100, 250]
    assert reader.evaluations()["rows"] == []


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
    answer = reader.series([f"loss/m{k}" for k in range(6)])
    assert time.perf_counter() - began < 6.0
    assert len(json.dumps(answer)) < 1 << 18
    assert answer["sampled"]
    began = time.perf_counter()
    writer.row(100_001, **{"loss/m0": 1.0})
    assert steps_of(reader, "loss/m0")[-1] == 100_001
    assert time.perf_counter() - began < 0.5


def test_a_huge_log_is_sampled_and_then_followed(writer: Any, reader: RunReader) -> None:
    line = '{"step": %9d, "env_steps": 1, "wall_s": 1.0, "loss/a": 0.5, "pad": "%s"}\n'
    with (writer.folder / "metrics.jsonl").open("w") as file:
        for step in range(100_000):
            file.write(line % (step, "x" * 300))
    assert reader.series([])["sampled"]
    steps = steps_of(reader, "loss/a")
    assert (steps[0] < 500, steps[-1]) == (True, 99_999)
    writer.row(100_000, **{"loss/a": 1.0})
    assert steps_of(reader, "loss/a")[-1] == 100_000


def test_a_huge_log_of_long_rows_is_sampled_too(writer: Any, reader: RunReader) -> None:
    with (writer.folder / "metrics.jsonl").open("w") as file:
        for step in range(3_000):
            values = ", ".join(f'"m{k}": {step + k}.123456789' for k in range(200))
            file.write(f'{{"step": {step}, {values}}}\n')
    steps = steps_of(reader, "m199")
    assert len(steps) > 250
    assert steps[-1] == 2_999


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
