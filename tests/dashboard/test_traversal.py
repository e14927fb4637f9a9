"""No URL reaches a file outside the page's own files and a run's videos."""

from __future__ import annotations

from typing import Any

import pytest

CLIMBS = [
    "..",
    "../..",
    "../../../../etc/passwd",
    "../secret.txt",
    "../../secret.txt",
    "%2e%2e/secret.txt",
    "%2e%2e/%2e%2e/secret.txt",
    "%2e%2e%2fsecret.txt",
    "%2e%2e%2f%2e%2e%2fsecret.txt",
    "..%2fsecret.txt",
    "..%2f..%2fsecret.txt",
    "..%5csecret.txt",
    "..%5c..%5csecret.txt",
    "..\\secret.txt",
    "..\\..\\secret.txt",
    "%252e%252e/secret.txt",
    "%252e%252e%252fsecret.txt",
    "..%252fsecret.txt",
    "....//secret.txt",
    "....//....//secret.txt",
    "..;/secret.txt",
    ".%2e/secret.txt",
    "%2e./secret.txt",
    "%c0%ae%c0%ae/secret.txt",
    "%c0%ae%c0%ae%c0%afsecret.txt",
    "%e0%80%ae%e0%80%ae/secret.txt",
    "%uff0e%uff0e/secret.txt",
    "%ef%bc%8e%ef%bc%8e/secret.txt",
    "/etc/passwd",
    "//etc/passwd",
    "%2fetc%2fpasswd",
    "%2f%2fetc%2fpasswd",
    "file:///etc/passwd",
    "C:%5cWindows%5cwin.ini",
    "step-000000500.gif/../../secret.txt",
    "step-000000500.gif%2f..%2f..%2frun_manifest.json",
    "step-000000500.gif%00",
    "step-000000500.gif%00.gif",
    "%00",
    "..%00/secret.txt",
    "../run_manifest.json",
    "..%2frun_manifest.json",
    "..%2fmetrics.jsonl",
    ".%2fstep-000000500.gif",
    "./step-000000500.gif",
    "step-000000500.gif%20",
    "step-000000500.gif.",
    "step-000000500.GIF",
    "~root/.bashrc",
    "%0d%0aX-Injected:%201",
    "link.gif",
    "linked/secret.txt",
    "linked%2fsecret.txt",
    ".",
    "",
    "%",
    "%zz",
]


@pytest.fixture(scope="module")
def linked_server(shared_server: Any) -> Any:
    videos = shared_server.folder / "videos"
    secret = shared_server.folder.parent / "secret.txt"
    (videos / "link.gif").symlink_to(secret)
    (videos / "linked").symlink_to(secret.parent)
    return shared_server


def test_climbing_out_is_not_found(linked_server: Any) -> None:
    assert len(CLIMBS) >= 50
    run = linked_server.json("/api/runs")["runs"][0]["id"]
    assert linked_server.get(f"/runs/{run}/videos/step-000000500.gif")[0] == 200
    wrong = []
    places = [f"/runs/{run}/{place}" for place in ("videos/", "imagination/", "")]
    for prefix in (*places, "/static/", "/runs/", "/api/runs/", f"/api/runs/{run}/"):
        for climb in CLIMBS:
            text = f"GET {prefix}{climb} HTTP/1.1\r\nHost: 127.0.0.1:{linked_server.port}\r\n\r\n"
            status, _, body = linked_server.raw(text.encode())
            if status != 404 or b"SECRET" in body or b"root:" in body:
                wrong.append((prefix, climb, status))
    assert wrong == []


def test_links_in_place_of_the_runs_own_files_are_not_read(
    start_server: Any, writer: Any, tmp_path: Any
) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text('{"status": "SECRET", "step": 1, "SECRET": 1}\n')
    for name in ("run_manifest.json", "eval.jsonl", ".lock"):
        (writer.folder / name).symlink_to(secret)
    (writer.folder / "videos").symlink_to(tmp_path)
    writer.row(5, **{"loss/a": 1.0})
    server = start_server(writer.folder)
    run = server.json("/api/runs")["runs"][0]["id"]
    for path in (f"/api/runs/{run}", f"/api/runs/{run}/series", "/api/runs"):
        assert b"SECRET" not in server.get(path)[2]
    assert server.json(f"/api/runs/{run}")["videos"] == []


def test_videos_answer_byte_ranges(start_server: Any, writer: Any) -> None:
    content = bytes(range(256)) * 1000
    writer.manifest()
    writer.video("film.mp4", content)
    server = start_server(writer.folder)
    run = server.json("/api/runs")["runs"][0]["id"]
    path = f"/runs/{run}/videos/film.mp4"
    whole = server.get(path)
    assert whole[2] == content
    assert whole[1]["content-type"] == "video/mp4"
    for span, begin, end in (
        ("bytes=0-99", 0, 100),
        ("bytes=255900-", 255_900, 256_000),
        ("bytes=-10", 255_990, 256_000),
        ("bytes=200000-999999", 200_000, 256_000),
    ):
        status, headers, body = server.get(path, headers={"Range": span})
        assert status == 206
        assert headers["content-range"] == f"bytes {begin}-{end - 1}/256000"
        assert body == content[begin:end]
    assert server.get(path, headers={"Range": "bytes=256000-"})[0] == 416
    several = server.get(path, headers={"Range": "bytes=0-1,5-6"})
    assert several[1]["content-type"].startswith("multipart/byteranges")
