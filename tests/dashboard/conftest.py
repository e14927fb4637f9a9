"""Run folders written by hand, a real server in its own process, and a headless browser."""

from __future__ import annotations

import fcntl
import http.client
import json
import math
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("starlette", reason="the dashboard extra is not installed")
pytest.importorskip("uvicorn", reason="the dashboard extra is not installed")

from worldflux.dashboard import start_in_background

sys.path.insert(0, str(Path(__file__).parent))

from chromium import driver, page, wait_until

__all__ = ["driver", "page", "wait_until"]

# The smallest GIF: one transparent pixel.
PIXEL_GIF = bytes.fromhex(
    "47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b"
)


# Each parallel test process looks for free ports in its own range.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
FIRST_PORT = 18_765 + 100 * WORKER


class RunWriter:
    """Writes the files of a run as the trainer does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def manifest(self, **changes: Any) -> None:
        manifest: dict[str, Any] = {
            "schema_version": 1,
            "status": "completed",
            "run_classification": "meaningful_local_training",
            "data_mode": "online",
            "degraded_modes": [],
            "project_name": "swing-up",
            "model": "tdmpc2:ci",
            "parameters": 123_456,
            "device": "cpu",
            "environment": {"id": "Pendulum-v1", "time_limit": 200},
            "training_config": {"total_steps": 10_000, "batch_size": 256},
            "seeds": {"run": 42, "evaluation": 1_000_042},
            "random_return_mean": -1200.0,
            "global_step": 0,
            "env_steps": 0,
        }
        text = json.dumps(manifest | changes)
        (self.folder / "run_manifest.json").write_text(text)

    def row(self, step: int, **values: Any) -> None:
        names = {"env_steps": 2 * step, "time": 1.7e9 + step, "wall_s": step / 50}
        self.raw("metrics.jsonl", json.dumps({"step": step, **names, **values}) + "\n")

    def evaluation(self, step: int, mean: float | None, **values: Any) -> None:
        row = {
            "step": step,
            "env_steps": 2 * step,
            "time": 1.7e9 + step,
            "return_mean": mean,
            "return_std": 2.5,
            "returns": [mean] * 5,
            "length_mean": 200.0,
            "random_return_mean": -1200.0,
            "seed": 1,
        }
        self.raw("eval.jsonl", json.dumps(row | values) + "\n")

    def raw(self, name: str, text: str) -> None:
        with (self.folder / name).open("a") as file:
            file.write(text)

    def video(self, name: str, content: bytes = PIXEL_GIF) -> Path:
        path = self.folder / "videos" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run's lock, as a living trainer does."""
        with (self.folder / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            file.flush()
            yield

    def learning_curve(self, rows: int = 200, seed: int = 0) -> None:
        """A plausible run: losses that fall, returns that rise."""
        for index in range(1, rows + 1):
            step = 50 * index
            wave = math.sin(index * 1.7 + seed) + math.sin(index * 0.37 + 2 * seed)
            decay = math.exp(-index / 40)
            self.row(
                step,
                **{
                    "loss/consistency": 0.02 + 0.4 * decay + 0.01 * wave,
                    "loss/reward": 1.1 + 2 * decay + 0.1 * wave,
                    "loss/value": 2.2 - 0.8 * decay + 0.1 * wave,
                    "grad_norm/world_model": 3 + wave,
                    "train/episode_return": -1300 + 1100 * (1 - decay) + 60 * wave,
                    "rate/updates_per_s": 50 + wave,
                    "rate/env_steps_per_s": 100 + 2 * wave,
                },
            )
            if index % 10 == 0:
                mean = -1250 + (1050 + 40 * seed) * (1 - decay) + 30 * wave
                self.evaluation(step, mean, return_std=140 * decay + 30)


@pytest.fixture
def writer(tmp_path: Path) -> RunWriter:
    """An empty run folder `demo` to write into."""
    return RunWriter(tmp_path / "demo")


@pytest.fixture
def new_writer() -> type[RunWriter]:
    """The writer's class, for tests with several runs."""
    return RunWriter


class Server:
    """The page in its own process, and requests to it."""

    def __init__(self, folder: Path, refresh_ms: int = 100, **options: Any) -> None:
        self.folder = folder
        self._background = start_in_background(
            folder, port=FIRST_PORT, refresh_ms=refresh_ms, **options
        )
        self.url = self._background.url
        self.pid = self._background.process.pid
        self.port = urlsplit(self.url).port or 0
        self.stop = self._background.stop
        self.leave = self._background.leave

    def get(
        self, path: str, method: str = "GET", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a request with a proper Host."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, headers=headers or {})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return response.status, names, response.read()
        finally:
            connection.close()

    def json(self, path: str) -> Any:
        """A strict JSON answer."""
        status, _, body = self.get(path)
        assert status == 200, (status, body)
        return json.loads(body, parse_constant=_refuse)

    def connect(self) -> socket.socket:
        """A bare connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def raw(self, text: bytes) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of a request exactly as written; the connection is closed."""
        with self.connect() as connection:
            connection.sendall(text)
            answer = b""
            while b"\r\n\r\n" not in answer:
                piece = connection.recv(65536)
                if not piece:
                    break
                answer += piece
            head, _, body = answer.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            pairs = [line.split(": ", 1) for line in lines]
            headers = {name.lower(): value for name, value in pairs}
            missing = int(headers.get("content-length", "0")) - len(body)
            while missing > 0 and (piece := connection.recv(65536)):
                body += piece
                missing -= len(piece)
            return int(first.split()[1]), headers, body


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


@pytest.fixture
def server_class() -> type[Server]:
    """The server's class, for tests with options of their own."""
    return Server


@pytest.fixture
def start_server() -> Iterator[Callable[[Path], Server]]:
    """Starts the page over a folder; stopped after the test."""
    started: list[Server] = []

    def start(folder: Path) -> Server:
        started.append(Server(folder))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for a module's read-only probes, over a run `demo` next to a secret file."""
    place = tmp_path_factory.mktemp("place")
    (place / "secret.txt").write_text("SECRET")
    writer = RunWriter(place / "demo")
    writer.learning_curve(20)
    writer.manifest()
    writer.video("step-000000500.gif")
    server = Server(writer.folder)
    yield server
    server.stop()


def pytest_configure(config: pytest.Config) -> None:
    # selenium must not look for drivers on the network.
    os.environ.setdefault("SE_OFFLINE", "true")
