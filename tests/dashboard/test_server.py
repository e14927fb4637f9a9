"""Where the page listens, who may come, and how its process lives and ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from worldflux.dashboard import server as server_module
from worldflux.dashboard import start_in_background
from worldflux.dashboard.server import PORTS_TRIED, listen
from worldflux.errors import ConfigurationError

from ..warm import Warm

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield int(holder.getsockname()[1])


def test_a_taken_default_port_gives_the_next_free_one(taken_port: int) -> None:
    listener = listen("127.0.0.1", taken_port, exact_port=False, allow_remote=False)
    with listener.socket:
        chosen = listener.socket.getsockname()[1]
    assert taken_port < chosen < taken_port + PORTS_TRIED
    assert listener.url == f"http://127.0.0.1:{chosen}/"
    assert listener.access.port == chosen


def test_a_taken_chosen_port_is_told(taken_port: int) -> None:
    with pytest.raises(ConfigurationError, match=f"port {taken_port} is in use") as caught:
        listen("127.0.0.1", taken_port, exact_port=True, allow_remote=False)
    assert "--port" in str(caught.value)


def test_no_free_port_at_all_is_told(taken_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "PORTS_TRIED", 1)
    with pytest.raises(ConfigurationError, match="in use"):
        listen("127.0.0.1", taken_port, exact_port=False, allow_remote=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_another_host_needs_the_flag(host: str) -> None:
    with pytest.raises(ConfigurationError, match="reachable from other machines"):
        listen(host, 0, exact_port=True, allow_remote=False)


def test_an_unknown_host_is_told() -> None:
    with pytest.raises(ConfigurationError, match="cannot resolve"):
        listen("no such host", 0, exact_port=True, allow_remote=True)


def test_it_listens_on_loopback_only(start_server: Any, writer: Any) -> None:
    writer.manifest()
    server = start_server(writer.folder)
    listening = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if int(port, 16) == server.port and state == "0A":
                listening.append(address)
    assert listening == ["0100007F"]


def test_open_to_others_it_asks_for_a_random_token(writer: Any) -> None:
    writer.manifest()
    command = [sys.executable, "-m", "worldflux", "dashboard", str(writer.folder)]
    command += ["--host", "0.0.0.0", "--allow-remote", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        match = re.fullmatch(r"http://.+:(\d+)/\?token=(\S{32})\n", process.stdout.readline())
        assert match is not None
        base, token = f"http://127.0.0.1:{match[1]}", match[2]
        try:
            assert fetch(f"{base}/api/runs") == (401, None)
            assert fetch(f"{base}/api/runs?token=wrong") == (401, None)
            assert fetch(f"{base}/api/runs", {"Host": f"evil.example:{match[1]}"}) == (403, None)
            status, cookie = fetch(f"{base}/?token={token}")
            assert status == 303
            assert cookie is not None
            assert "HttpOnly" in cookie
            assert fetch(f"{base}/api/runs", {"Cookie": cookie.split(";")[0]}) == (200, None)
            broken = {"Cookie": f"worldflux_{match[1]}=x; a=\x7f"}
            assert fetch(f"{base}/api/runs", broken)[0] == 401
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> None:
        return None


def fetch(url: str, headers: dict[str, str] | None = None) -> tuple[int, str | None]:
    opener = urllib.request.build_opener(_NoRedirect)
    request = urllib.request.Request(url, headers=headers or {})
    try:
        with opener.open(request, timeout=10) as answer:
            return answer.status, answer.headers["set-cookie"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["set-cookie"]


def test_the_command_prints_its_address_once_and_ends_with_an_interrupt(
    writer: Any, free_port: int
) -> None:
    writer.manifest()
    command = [sys.executable, "-m", "worldflux", "dashboard", str(writer.folder)]
    command += ["--port", str(free_port)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"http://127.0.0.1:{free_port}/\n"
        assert fetch(f"http://127.0.0.1:{free_port}/api/runs")[0] == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
    assert process.returncode == 0
    assert out == ""
    assert "Traceback" not in err


def test_mistakes_on_the_command_line(
    tmp_path: Path, taken_port: int, writer: Any, python: Warm
) -> None:
    writer.manifest()
    run = str(writer.folder)
    for arguments, message in (
        ([str(tmp_path / "missing")], "there is no folder"),
        ([str(tmp_path / "demo" / "..") + "/demo/none"], "there is no folder"),
        ([run, "--port", str(taken_port)], f"port {taken_port} is in use"),
        ([run, "--host", "0.0.0.0"], "--allow-remote"),
        ([run, "--allow-host", "http://hub.example/"], "is not a host name"),
        ([run, "--base-path", "a?b"], "is not a path"),
    ):
        result = python.run("-m", "worldflux", "dashboard", *arguments, cwd=ROOT)
        assert result.returncode == 2, result.stderr
        assert message in result.stderr
        assert result.stdout == ""


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_without_the_extra_the_install_command_is_told(
    writer: Any, tmp_path: Path, missing: str
) -> None:
    writer.manifest()
    blocker = (
        "import sys, importlib.util as u\n"
        "find = u.find_spec\n"
        f"u.find_spec = lambda name, *a: None if name == {missing!r} else find(name, *a)\n"
        f"sys.argv = ['worldflux', 'dashboard', {str(writer.folder)!r}]\n"
        "from worldflux.cli.app import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", blocker], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 4
    assert "pip install 'worldflux[dashboard]'" in result.stderr


def test_the_background_page_ends_with_its_parent(writer: Any, wait_until: Any) -> None:
    writer.manifest()
    parent = (
        "import sys, time\n"
        "from worldflux.dashboard import start_in_background\n"
        "page = start_in_background(sys.argv[1], port=18765)\n"
        "print(page.process.pid, page.url, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", parent, str(writer.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        pid, url = process.stdout.readline().split()
        try:
            assert fetch(f"{url}api/runs")[0] == 200
            assert os.getpriority(os.PRIO_PROCESS, int(pid)) >= 5
        finally:
            process.send_signal(signal.SIGKILL)
    wait_until(lambda: has_ended(int(pid)))


def has_ended(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_the_background_page_stops_when_told(tmp_path: Path, wait_until: Any) -> None:
    with start_in_background(tmp_path, port=18_765) as page:
        # The address is valid at once: the socket listens before the process runs.
        assert fetch(f"{page.url}api/runs")[0] == 200
        answer = urllib.request.urlopen(f"{page.url}api/runs", timeout=10)
        with answer:
            assert json.load(answer)["runs"][0]["status"] == "waiting"
    assert page.process.returncode == 0
    page.stop()


def test_the_server_loads_no_torch(writer: Any) -> None:
    code = (
        "import sys, worldflux.dashboard.server, worldflux.dashboard.background\n"
        "import worldflux.cli.dashboard\n"
        "assert 'torch' not in sys.modules, 'loaded'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
