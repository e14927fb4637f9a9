"""Videos, frames of the agent at work and imagination on the page, in a real headless Chromium."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from chromium import problems, text_of
from PIL import Image

from worldflux.evaluation.video import write_video


def test_videos_are_shown_and_runs_compared(
    page: Any, start_server: Any, new_writer: Any, tmp_path: Any, wait_until: Any
) -> None:
    for index, name in enumerate(("first", "second")):
        run = new_writer(tmp_path / "runs" / name)
        run.manifest()
        run.learning_curve(40, seed=index)
        run.video("step-000000500.gif")
    driver = page(start_server(tmp_path / "runs"))
    image = (
        "const i = document.querySelector('#videos img'); return i && i.complete && i.naturalWidth"
    )
    driver.execute_script("document.getElementById('videos-section').scrollIntoView()")
    wait_until(lambda: driver.execute_script(image) == 1)
    driver.execute_script("scrollTo(0, 0)")
    names = (
        "return document.querySelector('#returns .plot').data"
        "?.filter((line) => !line.isBaseline).map((line) => line.name).sort()"
    )
    wanted = ["first (seed 42)", "second (seed 42)"]
    wait_until(lambda: driver.execute_script(names) == wanted)


def test_an_evaluation_video_plays(
    page: Any, start_server: Any, writer: Any, wait_until: Any
) -> None:
    pytest.importorskip("av", reason="the video extra is not installed")
    writer.manifest()
    frames = [np.full((64, 64, 3), 8 * index, np.uint8) for index in range(30)]
    write_video(writer.folder / "videos", "step-000000500", frames, 15)
    driver = page(start_server(writer.folder))
    wait_until(lambda: "step-000000500.mp4" in text_of(driver, "#videos"))
    driver.execute_script(
        "const film = document.querySelector('#videos video');"
        "film.scrollIntoView(); film.playbackRate = 4; film.play()"
    )
    wait_until(
        lambda: driver.execute_script("return document.querySelector('#videos video').currentTime")
    )
    size = "const v = document.querySelector('#videos video'); return [v.videoWidth, v.controls]"
    assert driver.execute_script(size) == [64, True]
    assert problems(driver) == []


def test_frames_of_the_agent_at_work_move(
    page: Any, start_server: Any, writer: Any, wait_until: Any
) -> None:
    writer.manifest(status="running")
    folder = writer.folder / "gameplay"
    folder.mkdir()

    def frame(number: int) -> None:
        image = Image.new("RGB", (32, 32), (number, 0, 0))
        image.save(folder / f"{number:08d}-{100 * number}-{200 * number}.jpg")

    frame(1)
    with writer.locked():
        driver = page(start_server(writer.folder))
        wait_until(lambda: driver.find_element("id", "gameplay-section").is_displayed())
        scroll = "document.getElementById('gameplay-section').scrollIntoView()"
        driver.execute_script(scroll)
        wait_until(lambda: "update 100, environment step 200" in text_of(driver, "#gameplay-note"))
        width = "return document.getElementById('gameplay-frame').naturalWidth"
        wait_until(lambda: driver.execute_script(width) == 32)
        first = driver.execute_script("return document.getElementById('gameplay-frame').src")
        for number in range(2, 12):
            frame(number)
        wait_until(lambda: "update 1,100" in text_of(driver, "#gameplay-note"))
        last = driver.execute_script("return document.getElementById('gameplay-frame').src")
        assert first != last
        assert last.startswith("data:image/jpeg;base64,")
    assert problems(driver) == []


def test_imagination_is_next_to_reality_and_refreshed(
    page: Any, start_server: Any, writer: Any, wait_until: Any
) -> None:
    writer.manifest(status="running")
    folder = writer.folder / "imagination"
    folder.mkdir()

    def imagined(step: int, decodes: bool) -> None:
        Image.new("RGB", (1100, 300), (step, 80, 80)).save(folder / f"step-{step:09d}.png")
        kinds = ["observation", "reward", "value"] if decodes else ["reward", "value"]
        column = {"model": [0.1, 0.2, step], "persistence": [1.0] * 3, "mean": [2.0] * 3}
        numbers = {"windows": 64, "context": 5, "decodes_observations": decodes}
        numbers["errors"] = dict.fromkeys(kinds, column)
        (folder / f"step-{step:09d}.json").write_text(json.dumps(numbers))

    def shown() -> list[str]:
        return driver.execute_script(
            "return [...document.querySelectorAll('#imagination-errors figure')]"
            ".filter((f) => !f.hidden && f.querySelector('.plot').data)"
            ".map((f) => `${f.querySelector('.name').textContent}"
            " ${f.querySelector('.plot').data.find((line) => line.isRead)?.y.at(-1)}`)"
        )

    imagined(10, decodes=False)
    with writer.locked():
        driver = page(start_server(writer.folder))
        wait_until(lambda: "step-000000010" in text_of(driver, "#imagination-note"))
        assert "does not decode observations" in text_of(driver, "#imagination-note")
        driver.execute_script("document.getElementById('imagination-errors').scrollIntoView()")
        wait_until(lambda: shown() == ["reward error by horizon 10", "value error by horizon 10"])
        imagined(20, decodes=True)
        wait_until(lambda: "step-000000020" in text_of(driver, "#imagination-note"))
        assert "does not decode" not in text_of(driver, "#imagination-note")
        wait_until(lambda: "observation error by horizon 20" in shown())
        source = "return document.querySelector('#imagination-picture img').src"
        wait_until(lambda: driver.execute_script(source).endswith("/step-000000020.png"))
        width = "return document.querySelector('#imagination-picture img').naturalWidth"
        wait_until(lambda: driver.execute_script(width) == 1100)
        choice = driver.find_element("id", "imagination-at")
        choice.send_keys("step-000000010")
        wait_until(lambda: driver.execute_script(source).endswith("/step-000000010.png"))
        page_width = "return document.documentElement.scrollWidth - window.innerWidth"
        assert driver.execute_script(page_width) <= 0
    assert problems(driver) == []
