"""How a page begins, ends and is reached, in a real headless Chromium."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from chromium import problems, text_of
from PIL import Image
from proxy import proxied

PARENT = """
import fcntl, json, os, socket, sys, time
from pathlib import Path
from worldflux.dashboard import start_in_background
folder = Path(sys.argv[1])
lock = (folder / ".lock").open("w")
fcntl.flock(lock, fcntl.LOCK_EX)
json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}, lock)
lock.flush()
page = start_in_background(folder, port=18900, refresh_ms=100)
print(page.process.pid, page.url, flush=True)
sys.stdin.readline()
page.leave()
"""


class Trainer:
    """A process that holds a run's lock and shows its page, as `worldflux train` does."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-c", PARENT, str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        pid, self.url = self.process.stdout.readline().split()
        self.page_pid = int(pid)

    def end(self) -> None:
        self.process.communicate("\n", timeout=20)


@contextmanager
def training(folder: Path) -> Iterator[Trainer]:
    trainer = Trainer(folder)
    try:
        yield trainer
    finally:
        trainer.process.kill()
        trainer.process.communicate()


def is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_page_tells_that_its_run_is_complete(
    page: Any, writer: Any, wait_until: Callable[..., Any]
) -> None:
    writer.manifest(status="running")
    writer.learning_curve(40)
    with training(writer.folder) as trainer:
        driver = page(trainer)
        wait_until(lambda: "running" in text_of(driver, "#facts"))
        # What comes in the last moment is shown too.
        writer.row(10_000, **{"loss/reward": 0.125})
        writer.evaluation(10_000, -99.0)
        (writer.folder / "checkpoints" / "step-000010000").mkdir(parents=True)
        imagined = writer.folder / "imagination"
        imagined.mkdir()
        Image.new("RGB", (1100, 300)).save(imagined / "step-000010000.png")
        writer.manifest(status="completed", global_step=10_000)
        trainer.end()
        wait_until(lambda: "training has ended" in text_of(driver, "#connection"))
        assert f"worldflux dashboard {writer.folder}" in text_of(driver, "#connection")
        assert "completed" in text_of(driver, "#facts")
        assert "-99" in text_of(driver, "#facts")
        wait_until(lambda: "-99" in text_of(driver, "#returns .readout"))
        assert "checkpoint step-000010000 saved" in text_of(driver, "#messages")
        width = "return document.querySelector('#imagination-picture img').naturalWidth"
        wait_until(lambda: driver.execute_script(width) == 1100)
        wait_until(lambda: not is_running(trainer.page_pid))
        time.sleep(0.5)
        assert "training has ended" in text_of(driver, "#connection")
    assert problems(driver) == []


def test_a_page_tells_that_its_run_was_killed(
    page: Any, writer: Any, wait_until: Callable[..., Any]
) -> None:
    writer.manifest(status="running")
    writer.learning_curve(20)
    with training(writer.folder) as trainer:
        driver = page(trainer)
        wait_until(lambda: "running" in text_of(driver, "#facts"))
        trainer.process.send_signal(signal.SIGKILL)
        wait_until(lambda: "the trainer was killed" in text_of(driver, "#connection"))
        assert "killed" in text_of(driver, "#facts")
        assert "left" not in text_of(driver, "#facts")
        assert "worldflux train --resume" in text_of(driver, "#alerts")
        wait_until(lambda: not is_running(trainer.page_pid))


def test_a_hidden_tab_is_told_too(
    driver: Any, page: Any, writer: Any, wait_until: Callable[..., Any]
) -> None:
    writer.manifest(status="running")
    writer.learning_curve(20)
    with training(writer.folder) as trainer:
        page(trainer)
        driver.execute_script(
            "Object.defineProperty(document, 'hidden', {get: () => true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
        writer.manifest(status="completed")
        trainer.end()
        wait_until(lambda: "training has ended" in text_of(driver, "#connection"), 20)
        wait_until(lambda: not is_running(trainer.page_pid))


def test_the_run_in_the_foreground_is_drawn(
    page: Any, start_server: Any, new_writer: Any, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    for index in range(8):
        run = new_writer(tmp_path / "runs" / f"exp-seed{index:02d}")
        run.manifest(started_at=1.7e9 + index, seeds={"run": index})
        run.learning_curve(20, seed=index)
    live = new_writer(tmp_path / "runs" / "zz-live")
    live.manifest(status="running", started_at=1.6e9, seeds={"run": 99})
    live.learning_curve(20, seed=30)
    with live.locked():
        driver = page(start_server(tmp_path / "runs"))
        wait_until(lambda: text_of(driver, "#run-title") == "zz-live")
        names = (
            "return document.querySelector('#returns .plot').data?.filter((l) => !l.isBaseline)"
            ".map((l) => [l.name.split(' ')[0], l.isRead])"
        )
        wait_until(lambda: ["zz-live", True] in (driver.execute_script(names) or []))
        # The newest ones next to it, not the first by name.
        expected = {"zz-live", *(f"exp-seed{index:02d}" for index in range(3, 8))}
        wait_until(lambda: {name for name, _ in driver.execute_script(names)} == expected)
        title = "return document.querySelector('#returns .readout').title"
        wait_until(lambda: "zz-live" in driver.execute_script(title))
        choose = "[...document.querySelectorAll('#runs button')].at(-1).click()"
        driver.execute_script(choose)
        chosen = wait_until(lambda: (t := text_of(driver, "#run-title")) != "zz-live" and t)
        wait_until(lambda: [chosen, True] in driver.execute_script(names))
    assert problems(driver) == []


@pytest.mark.parametrize(
    ("how", "options"),
    [
        ({}, {}),
        ({"host": "127.0.0.1:1"}, {}),
        ({"prefix": "/wf"}, {}),
        (
            {"prefix": "/user/me/proxy/8765", "keeps_prefix": True},
            {"base_path": "/user/me/proxy/8765"},
        ),
    ],
)
def test_a_page_behind_a_proxy_is_live(
    page: Any,
    writer: Any,
    server_class: Any,
    wait_until: Callable[..., Any],
    how: Any,
    options: Any,
) -> None:
    writer.manifest()
    writer.learning_curve(20)
    writer.video("step-000000500.gif")
    server = server_class(writer.folder, **options)
    try:
        with proxied(server.port, **how) as port:
            at = type("At", (), {"url": f"http://localhost:{port}{how.get('prefix', '')}/"})
            driver = page(at)
            wait_until(lambda: driver.find_elements("css selector", "#metrics figure"))
            has = "return document.querySelector('#returns .plot').data?.length"
            wait_until(lambda: driver.execute_script(has) == 2)
            driver.execute_script("document.getElementById('videos-section').scrollIntoView()")
            image = "return document.querySelector('#videos img')?.naturalWidth"
            wait_until(lambda: driver.execute_script(image) == 1)
            assert problems(driver) == []
            driver.get("about:blank")
    finally:
        server.stop()


def test_a_refused_script_says_what_to_do(
    driver: Any, writer: Any, start_server: Any, wait_until: Callable[..., Any]
) -> None:
    writer.manifest()
    server = start_server(writer.folder)
    with proxied(server.port) as port:
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": ["*/static/page.js"]})
        try:
            driver.get(f"http://localhost:{port}/")
            wait_until(lambda: "--allow-host localhost" in text_of(driver, "#connection"))
        finally:
            driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": []})
            driver.get("about:blank")


def test_nine_tabs_do_not_freeze_one_another(
    driver: Any, page: Any, writer: Any, start_server: Any, wait_until: Callable[..., Any]
) -> None:
    writer.manifest()
    writer.learning_curve(20)
    server = start_server(writer.folder)
    page(server)
    first = driver.current_window_handle
    try:
        for _ in range(8):
            driver.switch_to.new_window("tab")
            driver.get(server.url)
            wait_until(lambda: text_of(driver, "#connection") == "live")
        script = "const done = arguments[0]; fetch('api/runs').then((r) => done(r.status))"
        assert driver.execute_async_script(script) == 200
    finally:
        for handle in driver.window_handles:
            if handle != first:
                driver.switch_to.window(handle)
                driver.close()
        driver.switch_to.window(first)


def test_phases_are_shown_before_the_first_row(
    page: Any, writer: Any, start_server: Any, wait_until: Callable[..., Any]
) -> None:
    def beat(phase: str, **numbers: Any) -> None:
        content = {"phase": phase, "time": time.time(), "step": 0, "env_steps": 0, **numbers}
        (writer.folder / ".beat").write_text(json.dumps(content))
        os.replace(writer.folder / ".beat", writer.folder / "heartbeat.json")

    with writer.locked():
        driver = page(start_server(writer.folder))
        wait_until(lambda: "measuring" in text_of(driver, "#facts"))
        writer.manifest(status="running")
        beat("collecting", env_steps=1234, wall_s=12.0, left_s=300.0)
        wait_until(lambda: "collecting" in text_of(driver, "#facts"))
        assert "1,234" in text_of(driver, "#facts")
        assert "12 s so far" in text_of(driver, "#facts")
        wait_until(lambda: "about 4 min" in text_of(driver, "#facts"))
        for phase in ("pretraining", "training", "evaluating", "saving"):
            beat(phase, step=48, left_s=100.0)
            wait_until(lambda p=phase: p in text_of(driver, "#facts"))
        assert "48 of 10,000" in text_of(driver, "#facts")


def test_a_failure_comes_first_and_a_removed_folder_is_named(
    page: Any, writer: Any, start_server: Any, wait_until: Callable[..., Any]
) -> None:
    reason = "loss/reward became nan; lower training.learning_rate"
    writer.manifest(status="failed", reason=reason, degraded_modes=["cpu_fallback"])
    writer.row(10, **{"loss/a": 1.0})
    driver = page(start_server(writer.folder))
    wait_until(lambda: reason in text_of(driver, "#alerts"))
    top = "return document.querySelector('.alert.error').getBoundingClientRect().bottom"
    assert driver.execute_script(top) < 400
    assert "the run used the CPU" in text_of(driver, "#alerts")
    wait_until(lambda: driver.find_elements("css selector", "#metrics figure"))
    driver.find_element("id", "filter").send_keys("nothing like it")
    wait_until(lambda: "None of the 1 metrics matches" in text_of(driver, "#no-metrics"))
    shutil.rmtree(writer.folder)
    wait_until(lambda: "the folder is gone" in text_of(driver, "#facts"))
    assert f"{writer.folder} no longer exists" in text_of(driver, "#alerts")
