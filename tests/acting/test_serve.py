"""A served agent answers many clients, over real sockets, exactly as it acts."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

import worldflux
from worldflux.acting.serving import AgentServer, agent_server, unix_listener
from worldflux.cli.app import main
from worldflux.errors import ConfigurationError

RAW = {"content-type": "application/octet-stream"}


@contextmanager
def running(run: Path, **options: Any) -> Iterator[AgentServer]:
    """A server that answers in this process, on its own thread."""
    with agent_server(run, port=0, **options) as server:
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join()


@pytest.fixture(scope="module")
def served(
    projects: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, Path]]:
    """The port and the socket of a server whose deadline leaves time for every plan."""
    at = tmp_path_factory.mktemp("socket") / "agent.sock"
    with running(projects["pendulum"], hz=0.2, socket_path=at) as server:
        yield urlsplit(server.addresses[0]).port or 0, at


class Client(ExitStack):
    """Asks as a user's loop does, on one connection."""

    def __init__(self, port: int, at: Path | None = None) -> None:
        super().__init__()
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        if at is not None:
            self.http.sock = socket.socket(socket.AF_UNIX)
            self.http.sock.connect(str(at))
        self.callback(self.http.close)
        self.session: str | None = None

    def post(
        self, body: bytes, path: str = "/act", **headers: str
    ) -> tuple[int, bytes, dict[str, str]]:
        self.http.request("POST", path, body, headers)
        response = self.http.getresponse()
        return response.status, response.read(), dict(response.headers)

    def act(self, observation: Any, *, first: bool = False) -> dict[str, Any]:
        """In JSON."""
        asked = {"observation": np.asarray(observation).tolist(), "first": first}
        if self.session is not None:
            asked["session"] = self.session
        status, body, _ = self.post(json.dumps(asked).encode())
        answer = json.loads(body)
        assert status == 200, answer
        self.session = answer["session"]
        return answer

    def act_raw(self, observation: np.ndarray, *, first: bool = False) -> dict[str, Any]:
        """In raw arrays."""
        known = f"&session={self.session}" if self.session else ""
        status, body, headers = self.post(
            observation.tobytes(), f"/act?first={int(first)}{known}", **RAW
        )
        assert status == 200, body
        answer = json.loads(headers["x-answer"])
        self.session = answer["session"]
        return {**answer, "action": np.frombuffer(body, "<f4")}


def observations(seed: int, count: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3)).astype(np.float32)


def expected_actions(run: Path, seen: np.ndarray, first: int) -> list[Any]:
    agent = worldflux.load_agent(run)
    return [agent.act(each, True if i in (0, first) else None) for i, each in enumerate(seen)]


def test_clients_at_once_get_what_their_agents_would_do(
    projects: dict[str, Path], served: tuple[int, Path]
) -> None:
    """Two at a time, one of them slow, while a third one dies; both forms and both sockets."""
    port, at = served

    def play(seed: int, client: Client, ask: str) -> list[dict[str, Any]]:
        seen = observations(seed)
        return [getattr(client, ask)(each, first=i == 3) for i, each in enumerate(seen)]

    body = json.dumps({"observation": [1.0, 0.0, 0.0]}).encode()
    head = f"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with ExitStack() as opened:
        slow = opened.enter_context(socket.create_connection(("127.0.0.1", port)))
        slow.sendall(head + body[:5])
        pool = opened.enter_context(ThreadPoolExecutor(2))
        clients = [opened.enter_context(each) for each in (Client(port), Client(port, at))]
        players = [
            pool.submit(play, seed, client, ask)
            for seed, (client, ask) in enumerate(zip(clients, ("act", "act_raw"), strict=True))
        ]
        dying = socket.create_connection(("127.0.0.1", port))
        dying.sendall(head + body)
        # Closed at once, with a reset, while its answer is worked on.
        dying.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        dying.close()
        answers = [player.result() for player in players]
        slow.sendall(body[5:])
        assert slow.recv(15) == b"HTTP/1.1 200 OK"
    assert clients[0].session != clients[1].session
    for seed, given in enumerate(answers):
        assert {(each["how"], each["iterations"]) for each in given} == {("plan", 6)}
        assert {each["update"] for each in given} <= {1, 2}
        expected = expected_actions(projects["pendulum"], observations(seed), 3)
        np.testing.assert_array_equal([each["action"] for each in given], expected)


def test_what_is_refused_leaves_the_memory_as_it_was(
    projects: dict[str, Path], served: tuple[int, Path]
) -> None:
    with Client(served[0]) as client:
        _ask_what_is_refused(projects["pendulum"], client)


def _ask_what_is_refused(run: Path, client: Client) -> None:
    seen = observations(7)
    given = [client.act(each)["action"] for each in seen[:3]]
    refused = {
        b'{"observation": [0, NaN, 0], "session": "%s"}': (422, "not finite"),
        b'{"observation": [0, 0], "session": "%s"}': (422, "shape"),
        b'{"observation": [[0], 0, 0], "session": "%s"}': (422, "no array"),
        b'{"observation": "x", "session": "%s"}': (422, "shape"),
        b'{"session": "%s", "observation": {"a": 1}}': (422, "shape"),
        b'{"observation": [0, 0, 0], "session": "%s", "frist": true}': (400, '"observation"'),
        b'{"observation": [0, 0, 0], "session": 5}': (400, "text"),
        b'{"observation": [0, 0, 0], "session": "gone"}': (410, "no session"),
        b"[" * 20_000: (400, "not JSON"),
        b"": (400, "not JSON"),
    }
    name = str(client.session).encode()
    for body, (expected, words) in refused.items():
        status, answer, _ = client.post(body.replace(b"%s", name))
        assert (status, words in json.loads(answer)["error"]) == (expected, True), (body, answer)
    status, answer, _ = client.post(bytes(11), f"/act?session={client.session}", **RAW)
    assert status == 422
    assert "has 11 bytes, expected 12" in json.loads(answer)["error"]
    wrong = {"first=maybe": "0 or 1", "first=": "0 or 1", "first=true": "0 or 1"}
    wrong |= {"frist=1": '"session" and "first"', "first=1&first=0": "at most once"}
    for query, words in wrong.items():
        path = f"/act?session={client.session}&{query}"
        status, answer, _ = client.post(seen[0].tobytes(), path, **RAW)
        assert (status, words in json.loads(answer)["error"]) == (400, True), (query, answer)
    given += [client.act(each)["action"] for each in seen[3:]]
    expected = expected_actions(run, seen, 0)
    np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("POST /act HTTP/1.1\nHost: evil.example\nContent-Length: 2", 403),
        ("POST /act HTTP/1.1\nHost: localhost.evil.example\nContent-Length: 2", 403),
        (
            "POST /act HTTP/1.1\nHost: localhost\nOrigin: http://evil.example\nContent-Length: 2",
            403,
        ),
        ("POST /act HTTP/1.1\nHost: localhost\nContent-Length: 100000000", 413),
        ("POST /act HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked", 411),
        ("POST /act HTTP/1.1\nHost: localhost", 411),
        ("GET /act HTTP/1.1\nHost: localhost", 405),
        ("PUT /act HTTP/1.1\nHost: localhost\nContent-Length: 2", 405),
        ("GET / HTTP/1.1\nHost: localhost\nContent-Length: 2", 400),
    ],
)
def test_foreign_and_oversized_requests_are_refused_unread(
    served: tuple[int, Path], lines: str, status: int
) -> None:
    """The body never arrives, and the answer does not wait for it."""
    with socket.create_connection(("127.0.0.1", served[0]), timeout=10) as connection:
        connection.sendall(lines.replace("\n", "\r\n").encode() + b"\r\n\r\n")
        assert connection.recv(12) == f"HTTP/1.1 {status}".encode()


def test_it_describes_itself(served: tuple[int, Path]) -> None:
    with Client(*served) as client:
        client.http.request("GET", "/")
        told = json.loads(client.http.getresponse().read())
    assert told["observation"] == [{"name": "", "dtype": "<f4", "shape": [3]}]
    assert told["deadline_ms"] == 5000
    assert served[1].stat().st_mode & 0o777 == 0o600


def test_a_body_that_does_not_arrive_is_not_waited_for(
    served: tuple[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worldflux.acting.serving.BODY_TIMEOUT_S", 0.1)
    with socket.create_connection(("127.0.0.1", served[0]), timeout=10) as connection:
        connection.sendall(b"POST /act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{")
        answer = b""
        while piece := connection.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 408")


def test_a_taken_socket_and_wrong_options_are_refused_before_anything_runs(
    served: tuple[int, Path], tiny_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match="taken"), unix_listener(served[1]):
        pass
    for options, words in (
        ("--nope", "No such option"),
        ("--hz fast", "Invalid value for '--hz'"),
        ("--hz 'x", '--serve: "--hz \'x" is no list of options: No closing quotation'),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["train", str(tiny_project), f"--serve={options}"])
        assert ended.value.code == 2
        assert words in capsys.readouterr().err
    assert not (tiny_project / "outputs").exists()


def test_who_follows_a_run_is_told_what_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("worldflux.acting.serving.time.sleep", interrupted)
    with pytest.raises(SystemExit) as ended:
        main(["serve", str(tmp_path / "none"), "--follow"])
    assert ended.value.code == 2
    assert "there is no run to follow\nhint: start the run first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", str(tmp_path), "--follow"])
    assert f"waiting in {tmp_path} for the first weights" in capsys.readouterr().err


def test_the_socket_of_a_server_that_was_killed_is_replaced(tmp_path: Path) -> None:
    at = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(at))
    with unix_listener(at):
        assert at.exists()
    assert not at.exists()
