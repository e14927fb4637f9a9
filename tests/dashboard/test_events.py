"""Live updates: a page that was away misses nothing."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from worldflux.dashboard import run_reader
from worldflux.dashboard.discovery import RunCollection
from worldflux.dashboard.events import Audience, EventFeed, to_strict_json


class Listener:
    """A hand-written EventSource: collects events until its socket closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.events: list[tuple[str, Any]] = []
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        kind, data = "", ""
        with self._connection.makefile("rb") as lines:
            try:
                for raw in lines:
                    name, _, value = raw.decode().rstrip("\r\n").partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        data = value
                    elif name == "" and data:
                        self.events.append((kind, json.loads(data)))
                        kind, data = "", ""
            except OSError:
                pass
        self.ended.set()


@contextmanager
def listening(server: Any) -> Iterator[Listener]:
    connection = server.connect()
    head = f"GET /api/events?page=abc HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    connection.sendall((head + "Connection: close\r\n\r\n").encode())
    try:
        yield Listener(connection)
    finally:
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def test_what_was_missed_is_asked_for_by_bucket(
    start_server: Any, writer: Any, wait_until: Any
) -> None:
    writer.manifest(status="running")
    for step in range(1, 11):
        writer.row(step, **{"loss/a": float(step)})
    server = start_server(writer.folder)
    run = server.json("/api/runs")["runs"][0]["id"]
    first = server.json(f"/api/series?run={run}&name=loss/a&name=unknown")["runs"][0]
    assert (first["from"], first["width"], first["names"]) == (0, 1, ["loss/a"])
    assert list(first["metrics"]) == ["loss/a"]
    torn = json.dumps({"step": 11, "loss/a": 3.0, "loss/b": float("nan")}) + "\n"
    writer.raw("metrics.jsonl", torn[:9])
    place = f"{run}.{first['generation']}.9.1"
    time.sleep(0.3)
    assert "names" not in server.json(f"/api/series?run={place}&name=loss/a")["runs"][0]
    writer.raw("metrics.jsonl", torn[9:])
    with listening(server) as listener:
        wait_until(lambda: [d for k, d in listener.events if k == "run" and d["step"] == 11])
        summary = listener.events[-1][1]
    new = server.json(f"/api/series?run={place}&name=loss/a&name=loss/b")["runs"][0]
    assert new["version"] == summary["version"]
    assert (new["from"], new["names"]) == (9, ["loss/a", "loss/b"])
    assert floats(new["metrics"]["loss/a"]["mean"]) == [10.0, 3.0]
    assert floats(new["metrics"]["loss/b"]["mean"])[1] == np.inf
    assert summary["non_finite"] == 1


def floats(packed: str) -> list[float]:
    numbers: list[float] = np.frombuffer(base64.b64decode(packed), "<f4").tolist()
    return numbers


@pytest.mark.parametrize(
    "query", ["run=nowhere", "", "run={run}.x", "run={run}.1.2.99999999999999999", "run={run}.-1"]
)
def test_nonsense_is_refused_or_empty(shared_server: Any, query: str) -> None:
    run = shared_server.json("/api/runs")["runs"][0]["id"]
    status, _, body = shared_server.get("/api/series?name=a&" + query.format(run=run))
    assert status == 400 or json.loads(body) == {"runs": []}


def test_an_answer_has_a_largest_size(shared_server: Any) -> None:
    run = shared_server.json("/api/runs")["runs"][0]["id"]
    words = "&".join([f"run={run}"] * 30 + [f"name=m{index}" for index in range(30)])
    assert shared_server.get(f"/api/series?{words}")[0] == 400


def test_new_and_removed_runs_are_announced(
    start_server: Any, new_writer: Any, tmp_path: Any, wait_until: Any
) -> None:
    new_writer(tmp_path / "runs" / "one").manifest()
    server = start_server(tmp_path / "runs")
    with listening(server) as listener:
        wait_until(lambda: {d["label"] for k, d in listener.events if k == "run"} == {"one"})
        second = new_writer(tmp_path / "runs" / "two")
        second.manifest()
        wait_until(lambda: [k for k, d in listener.events if d.get("label") == "two"])
        (second.folder / "run_manifest.json").unlink()
        wait_until(lambda: [d for k, d in listener.events if k == "gone"])


def test_the_oldest_stream_makes_room(start_server: Any, writer: Any, wait_until: Any) -> None:
    writer.manifest()
    server = start_server(writer.folder)
    with listening(server) as oldest:
        wait_until(lambda: oldest.events)
        others = [listening(server) for _ in range(16)]
        listeners = [other.__enter__() for other in others]
        wait_until(lambda: all(listener.events for listener in listeners))
        assert oldest.ended.wait(3)
        assert not any(listener.ended.is_set() for listener in listeners)
        for other in others:
            other.__exit__(None, None, None)
    with listening(server) as back:
        wait_until(lambda: back.events)


@pytest.fixture
def feed(writer: Any, monkeypatch: pytest.MonkeyPatch) -> EventFeed:
    monkeypatch.setattr(run_reader, "SECONDS_BETWEEN_READS", 0.0)
    writer.row(1, a=1.0)
    return EventFeed(RunCollection([writer.folder]), Audience())


def test_a_replaced_log_changes_the_generation(feed: EventFeed, writer: Any) -> None:
    assert len(feed.poll()) == 1
    reader = feed._runs.readers()[0]
    before = reader.series(["a"])["generation"]
    (writer.folder / "new").write_text('{"step": 9, "a": 2.0}\n')
    os.replace(writer.folder / "new", writer.folder / "metrics.jsonl")
    assert len(feed.poll()) == 1
    after = reader.series(["a"], before, 1, 1)
    assert after["generation"] != before
    assert (after["from"], floats(after["metrics"]["a"]["mean"])) == (0, [2.0])


def test_a_quiet_poll_says_nothing_and_is_quick(feed: EventFeed) -> None:
    feed.poll()
    began = time.perf_counter()
    for _ in range(100):
        assert feed.poll() == []
    assert (time.perf_counter() - began) / 100 < 0.02


def test_json_is_strict_and_ascii() -> None:
    assert to_strict_json({"a": "\ud800 ü"}) == b'{"a":"\\ud800 \\u00fc"}'
    with pytest.raises(ValueError, match="JSON compliant"):
        to_strict_json({"a": float("nan")})
