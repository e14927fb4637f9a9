"""Frames of training and pictures of imagination, as the page's server sends them."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

JPEG = b"\xff\xd8\xff\xe0" + bytes(2000) + b"\xff\xd9"
ERRORS = {"model": [0.1, 0.2], "persistence": [0.3, 0.4], "mean": [0.5, 0.5]}


def put(folder: Path, place: str, name: str, content: bytes) -> None:
    (folder / place).mkdir(exist_ok=True)
    (folder / place / name).write_bytes(content)


def run_of(server: Any) -> str:
    return str(server.json("/api/runs")["runs"][0]["id"])


def numbers(server: Any, run: str, after: int) -> list[int]:
    answer = server.json(f"/api/runs/{run}/gameplay?after={after}")
    return [frame["number"] for frame in answer["frames"]]


def test_new_frames_come_once_and_in_order(start_server: Any, writer: Any) -> None:
    writer.manifest(status="running")
    server = start_server(writer.folder)
    run = run_of(server)
    assert server.json(f"/api/runs/{run}")["has_gameplay"] is False
    for number in range(40):
        put(writer.folder, "gameplay", f"{number:08d}-{10 * number}-{20 * number}.jpg", JPEG)
    assert numbers(server, run, -1) == list(range(8, 40))
    assert numbers(server, run, 35) == [36, 37, 38, 39]
    assert numbers(server, run, 39) == []
    (frame,) = server.json(f"/api/runs/{run}/gameplay?after=38")["frames"]
    assert base64.b64decode(frame["jpeg"]) == JPEG
    assert (frame["step"], frame["env_steps"]) == (390, 780)
    assert server.json(f"/api/runs/{run}")["has_gameplay"] is True
    for after in ("x", "1e3", "--1", "-", "", "9" * 30, "%00", "%D9%A3"):
        assert server.get(f"/api/runs/{run}/gameplay?after={after}")[0] == 404


def test_what_is_no_frame_is_not_sent(start_server: Any, writer: Any, tmp_path: Path) -> None:
    writer.manifest()
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(JPEG + b"SECRET")
    for name, content in {
        "00000001-1-1.jpg": b"<script>alert(1)</script>",
        "00000002-1-1.jpg": JPEG + bytes(1 << 20),
        "00000003-1-1.png": JPEG,
        "<b>-1-1.jpg": JPEG,
        ".frame.tmp": JPEG,
        "00000004-1-1.jpg": b"",
    }.items():
        put(writer.folder, "gameplay", name, content)
    (writer.folder / "gameplay" / "00000005-1-1.jpg").symlink_to(secret)
    server = start_server(writer.folder)
    assert numbers(server, run_of(server), -1) == []


def test_an_answer_with_large_frames_stays_below_a_megabyte(start_server: Any, writer: Any) -> None:
    writer.manifest()
    large = JPEG + bytes((64 << 10) - len(JPEG))
    for number in range(64):
        put(writer.folder, "gameplay", f"{number:08d}-1-1.jpg", large)
    server = start_server(writer.folder)
    status, _, body = server.get(f"/api/runs/{run_of(server)}/gameplay")
    assert status == 200
    assert 500_000 < len(body) < 1 << 20
    assert json.loads(body)["frames"][-1]["number"] == 63


def test_imaginations_are_listed_with_their_errors(start_server: Any, writer: Any) -> None:
    writer.manifest()
    server = start_server(writer.folder)
    run = run_of(server)
    assert server.json(f"/api/runs/{run}")["imaginations"] == []
    numbers_file = {
        "windows": 64,
        "context": 5,
        "decodes_observations": True,
        "errors": {"reward": ERRORS},
        "trusted": {"reward": 3, "value": "many", "other": 4},
    }
    for step in (10, 20):
        put(writer.folder, "imagination", f"step-{step}.png", b"PNG")
        put(writer.folder, "imagination", f"step-{step}.mp4", b"FILM")
        put(writer.folder, "imagination", f"step-{step}.json", json.dumps(numbers_file).encode())
    os.utime(writer.folder / "imagination" / "step-10.json")  # as a copy of the folder may have it
    put(writer.folder, "imagination", "alone.png", b"PNG")
    put(writer.folder, "imagination", '"><b>.png', b"PNG")
    detail = server.json(f"/api/runs/{run}")
    assert [entry["name"] for entry in detail["imaginations"]] == ["alone", "step-10", "step-20"]
    assert [entry["video"] for entry in detail["imaginations"]] == [
        None,
        "step-10.mp4",
        "step-20.mp4",
    ]
    assert [entry["has_errors"] for entry in detail["imaginations"]] == [False, True, True]
    for step in (10, 20):
        imagined = server.json(f"/api/runs/{run}/imagination/step-{step}")
        assert (imagined["name"], imagined["errors"]) == (f"step-{step}", {"reward": ERRORS})
        assert imagined["trusted"] == {"reward": 3}
    assert server.get(f"/api/runs/{run}/imagination/alone")[0] == 404
    path = f"/runs/{run}/imagination/step-20"
    assert server.get(f"{path}.png")[1]["content-type"] == "image/png"
    assert server.get(f"{path}.mp4")[2] == b"FILM"
    assert server.get(f"{path}.json")[0] == 404


def test_broken_numbers_of_an_imagination_are_left_out(start_server: Any, writer: Any) -> None:
    writer.manifest()
    broken = (
        '{"windows": NaN, "errors": {"reward": {"model": [1, NaN, "x"], "persistence": [1e999],'
    )
    broken += '"persistence": [1e999], "mean": []}, "value": {"model": 3}, "<b>": {}}}'
    put(writer.folder, "imagination", "step-1.json", broken.encode())
    server = start_server(writer.folder)
    imagined = server.json(f"/api/runs/{run_of(server)}/imagination/step-1")
    assert imagined["windows"] is None
    assert imagined["errors"] == {
        "reward": {"model": [1, None, None], "persistence": [None], "mean": []}
    }
