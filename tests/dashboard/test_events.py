"""Live updates: every row exactly once, also over a broken connection."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from worldflux.dashboard import run_reader
from worldflux.dashboard.cursor import format_cursor, parse_cursors
from worldflux.dashboard.discovery import RunCollection
from worldflux.dashboard.feed import MAX_BACKLOG_BYTES, EventFeed
from worldflux.dashboard.jsonl import Mark


class Listener:
    """A hand-written EventSource: collects events and the last id until its socket closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.events: list[tuple[str, Any]] = []
        self.last_id = ""
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        kind, data, pending_id = "", "", ""
        with self._connection.makefile("rb") as lines:
            try:
                for raw in lines:
                    line = raw.decode().rstrip("\r\n")
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "id":
                        pending_id = value
                    elif name == "data":
                        data = value
                    elif line == "" and data:
                        self.last_id = pending_id
                        self.events.append((kind, json.loads(data)))
                        kind, data = "", ""
            except OSError:
                pass
        self.ended.set()

    def steps(self) -> list[int]:
        return [row["step"] for kind, data in self.events if kind == "rows" for row in data["rows"]]

    def evaluated(self) -> list[int]:
        rows = [data for kind, data in self.events if kind == "rows"]
        return [row["step"] for data in rows for row in data["evaluations"]]


@contextmanager
def listening(server: Any, cursor: str = "", last_event_id: str = "") -> Iterator[Listener]:
    connection = server.connect()
    head = f"GET /api/events?cursor={cursor} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    head += "Connection: close\r\n"
    head += f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
    connection.sendall((head + "\r\n").encode())
    try:
        yield Listener(connection)
    finally:
        connection.shutdown(socket.SHUT_RDWR)
        connection.close()


def test_a_reconnect_loses_and_doubles_no_row(
    start_server: Any, writer: Any, wait_until: Any
) -> None:
    writer.manifest(status="running")
    writer.row(1, **{"loss/a": 1.0})
    server = start_server(writer.folder)
    run = server.json("/api/runs")["runs"][0]["id"]
    first = server.json(f"/api/runs/{run}/series")
    assert first["series"]["loss/a"]["step"] == [1]
    got: list[int] = []
    evaluated: list[int] = []
    cursor, last_id, step = first["cursor"], "", 1
    for _ in range(4):
        with listening(server, cursor, last_id) as listener:
            for _ in range(5):
                step += 1
                writer.row(step, **{"loss/a": 1.0})
            writer.evaluation(step, -100.0)
            expected = step
            wait_until(lambda e=expected, w=listener: e in w.steps() and e in w.evaluated())
        got += listener.steps()
        evaluated += listener.evaluated()
        last_id = listener.last_id
        # Away: rows are written, one of them torn when the connection comes back.
        for _ in range(50):
            step += 1
            writer.row(step, **{"loss/a": 2.0})
        step += 1
        torn = json.dumps({"step": step, "loss/a": 3.0}) + "\n"
        writer.raw("metrics.jsonl", torn[:9])
        with listening(server, cursor, last_id) as listener:
            wait_until(lambda e=step - 1, w=listener: e in w.steps())
            writer.raw("metrics.jsonl", torn[9:])
            wait_until(lambda e=step, w=listener: e in w.steps())
        got += listener.steps()
        evaluated += listener.evaluated()
        last_id = listener.last_id
    assert got == list(range(2, step + 1))
    assert evaluated == sorted(set(evaluated))
    assert len(evaluated) == 4


def test_broken_numbers_travel_as_null(start_server: Any, writer: Any, wait_until: Any) -> None:
    writer.row(1, a=1.0)
    server = start_server(writer.folder)
    run = server.json("/api/runs")["runs"][0]["id"]
    with listening(server, server.json(f"/api/runs/{run}/series")["cursor"]) as listener:
        writer.raw("metrics.jsonl", '{"step": 2, "a": NaN, "b": -Infinity}\n')
        wait_until(lambda: 2 in listener.steps())
    rows = next(data for kind, data in listener.events if kind == "rows")["rows"]
    assert rows[0]["values"] == {"a": None, "b": None}
    path = f"/api/runs/{run}/series"
    wait_until(lambda: server.json(path)["non_finite"].get("a", {}).get("count") == 1)


def test_new_and_removed_runs_are_announced(
    start_server: Any, new_writer: Any, tmp_path: Any, wait_until: Any
) -> None:
    new_writer(tmp_path / "runs" / "one").manifest()
    server = start_server(tmp_path / "runs")
    with listening(server) as listener:
        wait_until(lambda: [d["label"] for k, d in listener.events if k == "run"] == ["one"])
        second = new_writer(tmp_path / "runs" / "two")
        second.manifest()
        wait_until(lambda: [k for k, d in listener.events if d.get("label") == "two"])
        (second.folder / "run_manifest.json").unlink()
        wait_until(lambda: [d for k, d in listener.events if k == "gone"])


def test_the_oldest_stream_makes_room_and_comes_back(
    start_server: Any, writer: Any, wait_until: Any
) -> None:
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
    with listening(server, last_event_id=oldest.last_id) as back:
        wait_until(lambda: back.events)


@pytest.fixture
def feed(writer: Any, monkeypatch: pytest.MonkeyPatch) -> EventFeed:
    monkeypatch.setattr(run_reader, "SECONDS_BETWEEN_READS", 0.0)
    writer.row(1, a=1.0)
    runs = RunCollection([writer.folder])
    cursor = json.loads(runs.readers()[0].series())["cursor"]
    return EventFeed(runs, parse_cursors(cursor))


def kinds(feed: EventFeed) -> list[str]:
    return [event.name for event in feed.poll()]


def test_a_replaced_log_is_loaded_anew_once(feed: EventFeed, writer: Any) -> None:
    assert kinds(feed) == ["run"]
    (writer.folder / "new").write_text('{"step": 9}\n')
    os.replace(writer.folder / "new", writer.folder / "metrics.jsonl")
    assert kinds(feed) == ["reload", "run"]
    assert kinds(feed) == []


def test_a_page_too_far_behind_loads_the_decimated_history(feed: EventFeed, writer: Any) -> None:
    line = json.dumps({"step": 2, "a": 1.0, "pad": "x" * 1000}) + "\n"
    writer.raw("metrics.jsonl", line * (2 * MAX_BACKLOG_BYTES // len(line)))
    sent = list(feed.poll())
    assert sent[-2].name == "reload"
    assert sum(len(event.encode()) for event in sent) < 2 * MAX_BACKLOG_BYTES


def test_a_quiet_poll_is_quick(feed: EventFeed) -> None:
    kinds(feed)
    began = time.perf_counter()
    for _ in range(100):
        assert kinds(feed) == []
    assert (time.perf_counter() - began) / 100 < 0.02


def test_cursors_survive_the_round_trip_and_refuse_nonsense() -> None:
    text = format_cursor("0123456789ab", Mark(2**64 - 1, 10**15), Mark(0, 0))
    assert parse_cursors(text) == {"0123456789ab": (Mark(2**64 - 1, 10**15), Mark(0, 0))}
    for nonsense in ("", ",", "x.1.1.1.1", "0123456789ab.-1.0.0.0", "0123456789ab.1.1.1", "\n"):
        assert parse_cursors(nonsense) == {}
