"""Comparing runs: axes, smoothing, zoom, groups, filters, the address, and what can be saved."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chromium import problems, text_of


@pytest.fixture
def compared(
    page: Any, start_server: Any, new_writer: Any, tmp_path: Path, wait_until: Callable[..., Any]
) -> Any:
    """A page over two groups of three seeds, with curves that are known."""
    for index in range(6):
        seed, rate = index % 3, (0.1, 0.2)[index // 3]
        run = new_writer(tmp_path / "runs" / f"run{index}")
        training = {"total_steps": 1000, "learning_rate": rate, "seed": seed}
        run.manifest(seeds={"run": seed}, training_config=training, started_at=1e9 + index)
        for step in range(10, 1010, 10):
            level = (seed - 1) * 3 + 10 * (rate == 0.2)
            run.row(step, **{"loss/a": level + (-1) ** (step // 10), "grad_norm/b": 1.0})
            if step % 100 == 0:
                run.evaluation(step, level)
    driver = page(start_server(tmp_path / "runs"))
    driver.execute_script("document.querySelector('#metrics').scrollIntoView()")
    wait_until(lambda: len(lines(driver)) == 6)
    return driver


def lines(driver: Any) -> list[dict[str, Any]]:
    script = """
        const plot = [...document.querySelectorAll("figure")].find((figure) =>
          figure.querySelector(".name")?.textContent === "loss/a")?.querySelector(".plot");
        const finite = (n) => (Number.isFinite(n) ? n : null);
        const numbers = (values) => (values ? [...values].map(finite) : null);
        return (plot?.data ?? []).map((l) => ({name: l.name, x: numbers(l.x), y: numbers(l.y),
          low: numbers(l.low), high: numbers(l.high), raw: numbers(l.raw), colour: l.colour}));"""
    found: list[dict[str, Any]] = driver.execute_script(script)
    return found


def choose(driver: Any, element: str, value: Any, event: str = "change") -> None:
    script = (
        "const e = document.getElementById(arguments[0]);"
        "if (e.type === 'checkbox') e.checked = arguments[1]; else e.value = arguments[1];"
        "e.dispatchEvent(new Event(arguments[2]))"
    )
    driver.execute_script(script, element, value, event)


def test_smoothing_and_axes(compared: Any, wait_until: Callable[..., Any]) -> None:
    choose(compared, "smooth", 0.9, "input")
    wait_until(lambda: lines(compared)[0]["raw"])
    line = lines(compared)[0]
    assert max(line["raw"]) - min(line["raw"]) == 2
    assert max(line["y"][20:]) - min(line["y"][20:]) < 0.3
    assert line["y"][0] == pytest.approx(line["raw"][0])
    choose(compared, "axis", "env_steps")
    wait_until(lambda: lines(compared)[0]["x"][-1] == 2000)
    choose(compared, "axis", "wall_s")
    wait_until(lambda: lines(compared)[0]["x"][-1] == pytest.approx(20 / 3600))
    choose(compared, "logy", True)
    place = "return document.querySelector('#metrics .plot').chart.shown.logy"
    wait_until(lambda: compared.execute_script(place))
    for word in ("x=wall_s", "smooth=0.9", "logy=1"):
        assert word in compared.current_url
    compared.refresh()
    wait_until(lambda: text_of(compared, "#connection") == "live")
    compared.execute_script("document.querySelector('#metrics').scrollIntoView()")
    wait_until(lambda: lines(compared) and lines(compared)[0]["raw"])
    assert lines(compared)[0]["x"][-1] == pytest.approx(20 / 3600)
    assert problems(compared) == []


def test_seeds_become_a_mean_with_a_band(compared: Any, wait_until: Callable[..., Any]) -> None:
    names = {line["name"] for line in lines(compared)}
    assert "run0 (seed 0, learning_rate 0.1)" in names
    choose(compared, "group", "mean")
    wait_until(lambda: len(lines(compared)) == 2)
    low_rate = next(line for line in lines(compared) if "0.1" in line["name"])
    assert "3 seeds" in low_rate["name"]
    # Seeds at -3, 0 and 3, every one with the same wave of one.
    assert low_rate["y"][:2] == [-1, 1]
    assert low_rate["high"][0] - low_rate["y"][0] == pytest.approx(3)
    choose(compared, "group", "iqm")
    wait_until(lambda: lines(compared)[0]["high"][0] - lines(compared)[0]["y"][0] < 2)
    assert "interquartile mean" in text_of(compared, "#legend")


def test_zoom_is_shared_and_reset(compared: Any, wait_until: Callable[..., Any]) -> None:
    drag = """
        const plot = document.querySelector("#metrics .plot"), space = plot.chart.space;
        const box = plot.getBoundingClientRect();
        const mouse = {clientY: box.top + 40, button: 0, pointerId: 1, pointerType: "mouse"};
        const at = (x, kind) => plot.dispatchEvent(
          new PointerEvent(kind, {...mouse, clientX: box.left + space.x(x)}));
        plot.setPointerCapture = () => null;
        at(200, "pointerdown"); at(400, "pointermove"); at(400, "pointerup");"""
    compared.execute_script(drag)
    ranges = (
        "return [...document.querySelectorAll('.plot')].map((p) => p.chart)"
        ".filter((c) => c.isVisible && c.shown?.axis === 'step').map((c) => c.shown.range)"
    )
    wait_until(lambda: any(compared.execute_script(ranges)))
    for ends in compared.execute_script(ranges):
        assert ends == [pytest.approx(200, abs=5), pytest.approx(400, abs=5)]
    assert "zoom=" in compared.current_url
    cursors = "return [...document.querySelectorAll('.cursor')].filter((c) => !c.hidden).length"
    assert compared.execute_script(cursors) >= 2
    compared.find_element("id", "reset-zoom").click()
    wait_until(lambda: not any(compared.execute_script(ranges)))


def test_runs_are_filtered_ticked_and_sorted(compared: Any, wait_until: Callable[..., Any]) -> None:
    listed = "return [...document.querySelectorAll('#runs button')].map((b) => b.textContent)"
    compared.find_element("id", "find").send_keys("learning_rate 0.2")
    wait_until(lambda: compared.execute_script(listed) == ["run5", "run4", "run3"])
    compared.find_element("id", "none").click()
    # The run in the foreground stays.
    wait_until(lambda: "4 of 6 drawn" in text_of(compared, "#run-count"))
    compared.find_element("id", "filter").send_keys("loss|nothing")
    figures = "return [...document.querySelectorAll('#metrics .name')].map((n) => n.textContent)"
    wait_until(lambda: compared.execute_script(figures) == ["loss/a"])
    heads = (
        "return [...document.querySelectorAll('#compare thead button')].map((b) => b.textContent)"
    )
    assert "training.learning_rate" in compared.execute_script(heads)
    assert "runs=" in compared.current_url
    compared.execute_script(
        "[...document.querySelectorAll('#compare thead button')]"
        ".find((b) => b.textContent === 'best return').click()"
    )
    best = (
        "return [...document.querySelectorAll('#compare tbody tr')]"
        ".map((row) => row.cells[5].textContent)"
    )
    wait_until(lambda: "↑" in "".join(compared.execute_script(heads)))
    shown = [float(value) for value in compared.execute_script(best)]
    assert shown == sorted(shown)


def test_fifty_runs_have_colours_of_their_own(
    page: Any, start_server: Any, new_writer: Any, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    for index in range(50):
        run = new_writer(tmp_path / "runs" / f"run{index:02d}")
        run.manifest(seeds={"run": index}, started_at=1e9 + index)
        for step in (10, 20, 30):
            run.row(step, **{"loss/a": index + 0.1 * step})
    driver = page(start_server(tmp_path / "runs"))
    driver.find_element("id", "all").click()
    driver.execute_script("document.querySelector('#metrics').scrollIntoView()")
    wait_until(lambda: len(lines(driver)) == 50, 20)
    assert len({line["colour"] for line in lines(driver)}) == 50
    assert problems(driver) == []


def test_charts_are_saved(
    compared: Any, driver: Any, tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    where = {"behavior": "allow", "downloadPath": str(folder)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", where)
    for kind in ("SVG", "CSV", "PNG"):
        click = (
            "const f = [...document.querySelectorAll('figure')].find((figure) =>"
            "figure.querySelector('.name')?.textContent === 'loss/a');"
            "[...f.querySelectorAll('.save button')]"
            ".find((button) => button.textContent === arguments[0]).click()"
        )
        compared.execute_script(click, kind)
        wait_until(lambda k=kind: (folder / f"loss-a.{k.lower()}").exists())
    time.sleep(0.3)
    assert (folder / "loss-a.png").read_bytes().startswith(b"\x89PNG")
    drawing = (folder / "loss-a.svg").read_text()
    assert drawing.startswith("<svg")
    assert drawing.count("stroke-linejoin") > 6
    rows = (folder / "loss-a.csv").read_text().splitlines()
    assert rows[0] == '"run","updates","loss/a","low","high"'
    assert len(rows) == 601
    assert all(math.isfinite(float(row.split(",")[-3])) for row in rows[1:])
    compared.find_element("id", "save-page").click()
    copy = wait_until(lambda: next(folder.glob("*.html"), None), 20)
    wait_until(lambda: copy.read_text().endswith("</html>\n"))
    text = copy.read_text()
    assert text.count("<svg") >= 3
    assert "run5" in text
    assert "<script" not in text
    assert problems(compared) == []
