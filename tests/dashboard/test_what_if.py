"""What-if sessions of the page: who may begin one, what ends one, and the keyboard in Chromium."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from chromium import problems, text_of

from worldflux.verify.trust import trust_run

from ..what_if_runs import DREAMER, recorded_run

FRAME_MS = 100
JSON = {"content-type": "application/json"}


class Dashboard:
    """`worldflux dashboard` as a user starts it, and requests to it."""

    def __init__(self, place: Path, *options: str) -> None:
        command = [sys.executable, "-m", "worldflux", "dashboard", str(place), "--port", "0"]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        address = urlsplit(self.url)
        self.host, self.port = address.hostname or "", address.port or 0

    def ask(
        self, body: Any = None, headers: dict[str, str] = JSON, path: str = "/api/what-if"
    ) -> tuple[int, Any]:
        """(status, answer) of a POST, or without a body of a GET."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=120)
        method = "GET" if body is None else "POST"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(text) if is_json else text

    def run_id(self) -> str:
        return str(self.ask(path="/api/runs", headers={})[1]["runs"][0]["id"])

    def sessions(self) -> list[int]:
        """The processes that it started."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(word) for path in tasks for word in path.read_text().split()]

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=20)


@pytest.fixture(scope="module")
def catch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = recorded_run(tmp_path_factory.mktemp("catch"), "worldflux/Catch-v0", DREAMER)
    trust_run(folder, episodes=20, horizon=2)
    return folder


@pytest.fixture
def start(catch: Path) -> Iterator[Callable[..., Dashboard]]:
    """Starts a page over the run with options; ended after the test."""
    started: list[Dashboard] = []

    def begin(*options: str) -> Dashboard:
        started.append(Dashboard(catch, *options))
        return started[-1]

    yield begin
    for one in started:
        one.stop()


def test_a_session_answers_and_ends_with_its_page(start: Any, wait_until: Any) -> None:
    page = start()
    assert page.ask() == (200, {"refusal": ""})
    status, opened = page.ask({"page": "a", "run": page.run_id()})
    assert status == 200
    assert opened["recordings"] == [{"name": "fresh", "steps": [7, 7, 7]}]
    assert opened["trusted"] == 0
    assert opened["controls"]["keys"] == {"left": [0], "right": [2]}
    begun = page.ask({"page": "a", "moment": "fresh/1:2"})[1]
    assert (begun["step"], begun["is_over"]) == (2, False)
    moved = page.ask({"page": "a", "action": [2]})[1]
    assert (moved["step"], moved["action"]) == (3, [0, 0, 1])
    assert page.ask({"page": "a", "action": "agent"})[1]["step"] == 4
    assert "outside Discrete(3)" in page.ask({"page": "a", "action": [9]})[1]["error"]
    assert "no episode 9" in page.ask({"page": "a", "moment": "fresh/9:0"})[1]["error"]
    assert page.ask({"page": "b", "action": [2]})[1]["over"] is True
    (process,) = page.sessions()
    page.ask(path="/api/bye?page=a")
    wait_until(lambda: not Path(f"/proc/{process}").exists())
    assert page.ask({"page": "a", "action": [2]})[1]["error"] == "there is no session"


def test_a_session_whose_process_dies_is_over_and_the_page_lives(start: Any) -> None:
    page = start()
    page.ask({"page": "a", "run": page.run_id()})
    os.kill(page.sessions()[0], signal.SIGKILL)
    answer = page.ask({"page": "a", "moment": "fresh/0:0"})[1]
    assert (answer["error"], answer["over"]) == ("the session is over: its process ended", True)
    assert page.ask({"page": "a", "run": page.run_id()})[1]["environment"] == "worldflux/Catch-v0"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--read-only"], "the page was started with --read-only"),
        (["--allow-host", "hub.example"], "open to other machines"),
    ],
)
def test_a_page_that_only_reads_or_is_open_to_others_has_none(
    start: Any, options: list[str], why: str
) -> None:
    page = start(*options)
    assert why in page.ask()[1]["refusal"]
    assert page.ask({"page": "a", "run": page.run_id()})[0] == 405
    assert page.sessions() == []


def test_the_page_of_a_training_run_has_none(start_server: Any, writer: Any) -> None:
    writer.manifest(status="running")
    server = start_server(writer.folder)
    assert "worldflux dashboard RUN" in server.json("/api/what-if")["refusal"]
    assert server.get("/api/what-if", "POST")[0] == 405


def test_other_web_sites_and_malformed_requests_are_refused(start: Any) -> None:
    page = start()
    body = {"page": "a", "run": page.run_id()}
    for headers, status in (
        ({**JSON, "origin": "http://evil.example"}, 403),
        ({**JSON, "host": "evil.example"}, 403),
        ({**JSON, "sec-fetch-site": "cross-site"}, 403),
        ({"content-type": "text/plain"}, 415),
        ({}, 415),
    ):
        assert page.ask(body, headers)[0] == status
    for wrong in ([], "x", {"run": "x"}, {"page": "A!", "run": "x"}, {"page": []}, {"page": "a"}):
        assert page.ask(wrong)[0] == 400
    assert page.ask({"page": "a", "run": "x" * 9000})[0] == 413
    for path in ("/", "/api/runs", "/api/bye", "/static/page.js"):
        assert page.ask(body, path=path)[0] == 405
    assert "error" in page.ask({"page": "a", "run": "../../etc"})[1]
    assert page.sessions() == []


def test_a_missing_environment_is_named(catch: Path, tmp_path: Path) -> None:
    """A run that was copied to a machine without its environment."""
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(catch), str(copy)], check=True)
    manifest = json.loads((copy / "run_manifest.json").read_text())
    manifest["environment"]["id"] = "nowhere/Nothing-v0"
    (copy / "run_manifest.json").write_text(json.dumps(manifest))
    page = Dashboard(copy)
    answer = page.ask({"page": "a", "run": page.run_id()})[1]
    page.stop()
    assert "nowhere" in answer["error"]


def test_the_keyboard_drives_reality_and_imagination(
    driver: Any, start: Any, wait_until: Any, catch: Path
) -> None:
    keys = pytest.importorskip("selenium.webdriver.common.keys").Keys

    (catch / "imagination" / "step-000000002.png").write_bytes(b"")  # the panel is there
    page = start()
    driver.get(page.url)

    def frame() -> str:
        return text_of(driver, "#what-if-frame")

    wait_until(lambda: driver.find_element("id", "what-if-open").is_displayed())
    driver.execute_script("document.getElementById('what-if').scrollIntoView()")
    driver.find_element("id", "what-if-open").send_keys(keys.ENTER)
    wait_until(lambda: frame() == "step 0, as recorded", 120)
    assert driver.switch_to.active_element.get_attribute("id") == "what-if-stage"
    stage, times = driver.switch_to.active_element, []
    source = "return ['real', 'imagined'].map((id) => document.getElementById(`what-if-${id}`).src)"
    first = driver.execute_script(source)
    for step, key in enumerate((keys.ARROW_LEFT, keys.ARROW_RIGHT, "0", keys.ENTER, "2"), 1):
        stage.send_keys(key)
        wait_until(lambda now=step: frame().startswith(f"step {now}, "))
        times.append(int(re.findall(r"(\d+) ms", frame())[0]))
    after = driver.execute_script(source)
    assert frame().endswith("; the model is trusted for 0 steps from the moment")
    assert driver.find_element("id", "what-if-imagined").get_attribute("class") == "doubtful"
    assert first[0] != after[0]
    assert all(one.startswith("data:image/png") for one in after)
    names = (
        "return [...document.querySelectorAll('#what-if-lines .name')].map((n) => n.textContent)"
    )
    assert driver.execute_script(names) == ["reward", "value"]
    driver.find_element("id", "what-if-play").send_keys(keys.ENTER)
    wait_until(lambda: "step 7, the end of the episode" in frame())
    wait_until(lambda: text_of(driver, "#what-if-play") == "Play")
    driver.find_element("id", "what-if-step").send_keys(keys.ARROW_RIGHT)
    wait_until(lambda: frame() == "step 1, as recorded")
    # On a machine with other work everything takes as much longer.
    assert min(times) < FRAME_MS * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)), times
    choices = "return [...document.querySelectorAll('#what-if input, #what-if select')]"
    assert driver.execute_script(f"{choices}.every((one) => one.labels.length > 0)")
    assert problems(driver) == []
    (process,) = page.sessions()
    driver.get("about:blank")
    wait_until(lambda: not Path(f"/proc/{process}").exists())
