"""Silent, half-open and never-reading clients: survived, and forgotten after a while."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HALF_OPEN = 150
NEVER_READING = 150


def status_of(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = dict(line.split(":\t", 1) for line in lines)
    return {"threads": int(values["Threads"]), "memory_kb": int(values["VmRSS"].split()[0])}


def answer_seconds(server: Any, path: str) -> float:
    began = time.perf_counter()
    assert server.get(path)[0] == 200
    return time.perf_counter() - began


def test_three_hundred_slow_clients(
    start_server: Any, writer: Any, wait_until: Any, capfd: Any
) -> None:
    writer.learning_curve(100)
    writer.manifest()
    writer.video("large.mp4", bytes(8 << 20))
    server = start_server(writer.folder)
    video = f"/runs/{server.json('/api/runs')['runs'][0]['id']}/videos/large.mp4"
    for path in ("/", "/api/runs", video):
        server.get(path)
    before = status_of(server.pid)
    host = f"Host: 127.0.0.1:{server.port}\r\n"
    with ExitStack() as stack:
        half_open, never_reading = [], []
        for index in range(HALF_OPEN + NEVER_READING):
            connection = stack.enter_context(server.connect())
            if index % 2:
                connection.sendall(f"GET / HTTP/1.1\r\n{host}X-Slow: ".encode())
                half_open.append(connection)
            else:
                path = video if index % 4 else "/api/events"
                connection.sendall(f"GET {path} HTTP/1.1\r\n{host}\r\n".encode())
                never_reading.append(connection)
        assert (len(half_open), len(never_reading)) == (HALF_OPEN, NEVER_READING)
        slowest = max(answer_seconds(server, path) for path in ("/", "/api/runs") * 5)
        during = status_of(server.pid)
        assert slowest < 1.0
        assert during["threads"] <= 32
        assert during["memory_kb"] - before["memory_kb"] < 50 << 10
        # The half-open ones are closed five seconds after they came.
        half_open[-1].settimeout(8)
        wait_until(lambda: all(is_closed(connection) for connection in half_open), 8)
        assert answer_seconds(server, "/api/runs") < 1.0
        # Clients that never read neither delay the end nor make it noisy.
        began = time.perf_counter()
        server.stop()
        assert time.perf_counter() - began < 3.0
    assert capfd.readouterr().err == ""


def is_closed(connection: socket.socket) -> bool:
    connection.settimeout(0.001)
    try:
        return connection.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_more_connections_than_allowed_push_out_the_oldest_idle_ones(
    start_server: Any, writer: Any, wait_until: Any
) -> None:
    writer.manifest()
    server = start_server(writer.folder)
    with ExitStack() as stack:
        connections = [stack.enter_context(server.connect()) for _ in range(450)]
        wait_until(lambda: is_closed(connections[0]), 4)
        assert answer_seconds(server, "/api/runs") < 1.0
        assert sum(not is_closed(connection) for connection in connections) <= 400
