"""The page in a real headless Chromium: live, hostile, large, narrow, by keyboard, in the dark.

Needs Debian's chromium and chromium-driver, and selenium; without them every test here is named as
skipped.
"""

from __future__ import annotations

import json
import statistics
from typing import Any
from urllib.parse import urlsplit

from chromium import problems, text_of

PAYLOADS = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "<svg onload=window.hacked=1>",
    "<b>bold</b> & <i>more</i>",
    '"><script>window.hacked=1</script>',
    "'><img src=x onerror=window.hacked=1>",
    "javascript:window.hacked=1",
    '<a href="javascript:window.hacked=1">click</a>',
    "<iframe srcdoc='<script>top.hacked=1</script>'></iframe>",
    "</title><script>window.hacked=1</script>",
    "</script><script>window.hacked=1</script>",
    "<!--<script>window.hacked=1//-->",
    "<style>*{display:none}</style>",
    "<math><mi//xlink:href='data:x,<script>window.hacked=1</script>'>",
    "{{constructor.constructor('window.hacked=1')()}}",
    "${window.hacked=1}",
    "%{customdata.x} %{y}",
    "&lt;img src=x onerror=window.hacked=1&gt;",
    "\u202eright to left\u202c \u0000 \U0001f600",
    "__proto__",
    "constructor",
    "<form action=http://evil.example><button>go</button></form>",
]


def drawn(driver: Any, name: str) -> dict[str, Any] | None:
    """The first line that is drawn for a metric."""
    script = """
        for (const figure of document.querySelectorAll("#metrics figure"))
          if (figure.querySelector(".name").textContent === arguments[0]) {
            const line = figure.querySelector(".plot").data?.[0];
            const numbers = (values) => [...values].map((n) => (Number.isFinite(n) ? n : null));
            return line ? {x: numbers(line.x), y: numbers(line.y)} : null;
          }
        return null;"""
    return driver.execute_script(script, name)


def use_axis(driver: Any, axis: str) -> None:
    driver.execute_script(
        "const s = document.getElementById('axis'); s.value = arguments[0];"
        "s.dispatchEvent(new Event('change'))",
        axis,
    )


def test_a_live_run_moves(page: Any, start_server: Any, writer: Any, wait_until: Any) -> None:
    writer.manifest(status="running")
    with writer.locked():
        for step in range(100, 600, 100):
            writer.row(step, **{"loss/a": 1 / step})
        driver = page(start_server(writer.folder))
        wait_until(lambda: len((drawn(driver, "loss/a") or {"x": []})["x"]) == 5)
        assert "running" in text_of(driver, "#facts")
        writer.row(600, **{"loss/a": 0.25, "loss/new": 1.0})
        writer.evaluation(600, -150.0)
        wait_until(lambda: drawn(driver, "loss/a")["y"][-1] == 0.25)
        wait_until(lambda: drawn(driver, "loss/new"))
        wait_until(lambda: "600 of 10,000" in text_of(driver, "#facts"))
        wait_until(lambda: "-150" in text_of(driver, "#returns figure"))
        wait_until(lambda: "the best so far" in text_of(driver, "#messages"))
        assert "3 min 8 s" in text_of(driver, "#facts")
    wait_until(lambda: "killed" in text_of(driver, "#facts"))
    assert "worldflux train --resume" in text_of(driver, "#alerts")
    assert problems(driver) == []


def test_a_reconnect_loses_no_point(
    page: Any, start_server: Any, writer: Any, wait_until: Any
) -> None:
    writer.manifest(status="running")
    writer.row(1, a=1.0)
    server = start_server(writer.folder)
    driver = page(server)
    last = 1
    for _ in range(2):
        writer.row(last + 1, a=1.0)
        wait_until(lambda e=last + 1: (drawn(driver, "a") or {"x": [0]})["x"][-1] == e)
        server.stop()
        wait_until(lambda: text_of(driver, "#connection") != "live")
        for step in range(last + 2, last + 40):
            writer.row(step, a=2.0)
        last += 39
        restarted = start_server(writer.folder)
        assert restarted.port == server.port
        server = restarted
        wait_until(lambda e=last: drawn(driver, "a")["x"][-1] == e, 15)
    writer.row(last + 1, a=3.0)
    wait_until(lambda: drawn(driver, "a")["y"][-1] == 3.0)
    assert drawn(driver, "a")["x"] == list(range(1, last + 2))


def test_the_numbers_of_training_are_those_that_were_used(
    page: Any, start_server: Any, writer: Any, wait_until: Any
) -> None:
    defaults = {"total_steps": 10, "batch_size": 16}
    writer.manifest(training_config=defaults, resolved_training={"batch_size": 128})
    driver = page(start_server(writer.folder))
    rows = "document.querySelectorAll('#configuration > table tr')"
    shown = f"return [...{rows}].map((row) => row.textContent)"
    wait_until(lambda: "training_config.batch_size128" in driver.execute_script(shown))
    assert "training_config.total_steps10" in driver.execute_script(shown)


def test_hostile_names_stay_text(
    page: Any, start_server: Any, new_writer: Any, tmp_path: Any, wait_until: Any
) -> None:
    names = [payload.replace("/", "|").replace("\0", "") for payload in PAYLOADS]
    for name in names[:3]:
        new_writer(tmp_path / "runs" / name).manifest()
    hostile = new_writer(tmp_path / "runs" / names[3])
    hostile.manifest(
        project_name=PAYLOADS[0],
        model=PAYLOADS[1],
        environment={"id": PAYLOADS[2]},
        degraded_modes=PAYLOADS,
        reason=PAYLOADS[4],
        status="failed",
        training_config=dict.fromkeys(PAYLOADS, PAYLOADS[5]),
    )
    for step in (10, 20):
        hostile.row(step, **dict.fromkeys(PAYLOADS, 1.0))
        hostile.evaluation(step, 1.0)
    driver = page(start_server(tmp_path / "runs"))
    buttons = "return [...document.querySelectorAll('#runs button')].map((b) => b.textContent)"
    wait_until(lambda: len(driver.execute_script(buttons)) == 4)
    assert sorted(driver.execute_script(buttons)) == sorted(names[:4])
    choose = (
        "[...document.querySelectorAll('#runs button')]"
        ".find((button) => button.textContent === arguments[0]).click()"
    )
    driver.execute_script(choose, names[3])
    wait_until(lambda: text_of(driver, "#run-title") == names[3])
    wait_until(lambda: "training_config" in text_of(driver, "#configuration"))
    figures = "return [...document.querySelectorAll('#metrics .name')].map((n) => n.textContent)"
    wait_until(lambda: len(driver.execute_script(figures)) == len(PAYLOADS))
    assert sorted(driver.execute_script(figures)) == sorted(PAYLOADS)
    assert driver.title == f"{names[3]} · worldflux"
    alerts = text_of(driver, "#alerts")
    assert alerts.startswith(f"The run failed: {PAYLOADS[4]}")
    assert all(f"Degraded: {payload}" in alerts for payload in PAYLOADS)
    assert f"failed: {PAYLOADS[4]}" in text_of(driver, "#messages")
    configuration = text_of(driver, "#configuration")
    assert all(payload in configuration for payload in PAYLOADS)
    driver.execute_script("document.querySelector('#returns').scrollIntoView()")
    has_place = "return Boolean(document.querySelector('#returns .plot').chart.space)"
    wait_until(lambda: driver.execute_script(has_place))
    hover(driver)
    wait_until(lambda: names[3][:10] in text_of(driver, "#returns .plot"))
    inside = "b, i, a[href^=j], iframe, form, math, script:not([src]), [onerror], [onload]"
    assert driver.execute_script(f"return document.querySelectorAll(`main {inside}`).length") == 0
    assert driver.execute_script("return window.hacked") is None
    assert problems(driver) == []
    assert foreign_requests(driver) == []


def hover(driver: Any) -> None:
    """The pointer over the first evaluation: a label with the run's name."""
    driver.execute_script(
        "const plot = document.querySelector('#returns .plot');"
        "const [box, space] = [plot.getBoundingClientRect(), plot.chart.space];"
        "const [clientX, clientY] = [box.left + space.x(10), box.top + 50];"
        "const place = {clientX, clientY, pointerType: 'mouse'};"
        "plot.dispatchEvent(new PointerEvent('pointermove', place))"
    )


def foreign_requests(driver: Any) -> list[str]:
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    own = urlsplit(driver.current_url).netloc
    return [url for url in driver.execute_script(script) if urlsplit(url).netloc != own]


def test_a_hundred_thousand_points_stay_smooth(
    page: Any, start_server: Any, writer: Any, wait_until: Any
) -> None:
    writer.manifest(status="running")
    with (writer.folder / "metrics.jsonl").open("w") as file:
        for step in range(100_000):
            values = {f"loss/m{k}": (step * (37 + k)) % 1009 / 100 for k in range(4)}
            file.write(json.dumps({"step": step, "env_steps": 2 * step, "wall_s": step, **values}))
            file.write("\n")
    driver = page(start_server(writer.folder))
    wait_until(lambda: drawn(driver, "loss/m0"))
    use_axis(driver, "env_steps")
    # What the browser had cached from another test counts too.
    sizes = "return performance.getEntries().map((entry) => entry.decodedBodySize ?? 0)"
    assert 100_000 < sum(driver.execute_script(sizes)) < 1 << 20
    driver.execute_script("performance.clearMeasures()")
    for step in range(100_000, 100_010):
        writer.row(step, **{f"loss/m{k}": float(k) for k in range(4)})
        wait_until(lambda e=step: drawn(driver, "loss/m0")["x"][-1] == 2 * e)
    script = "return performance.getEntriesByName('chart redraw').map((entry) => entry.duration)"
    redraws = driver.execute_script(script)
    assert len(redraws) >= 10
    assert statistics.median(redraws) < 100


def test_broken_numbers_are_gaps_and_are_told(
    page: Any, start_server: Any, writer: Any, wait_until: Any
) -> None:
    writer.manifest()
    for step, value in ((1, 1.0), (2, None), (3, 3.0)):
        writer.row(step, **{"loss/a": value, "non_finite": ["loss/a"] if value is None else []})
    driver = page(start_server(writer.folder))
    wait_until(lambda: (drawn(driver, "loss/a") or {}).get("y") == [1.0, None, 3.0])
    wait_until(lambda: "1 logged values were NaN or infinite" in text_of(driver, "#alerts"))
    wait_until(lambda: "loss/a was NaN or infinite" in text_of(driver, "#messages"))


def test_a_narrow_window_and_the_keyboard(
    page: Any, start_server: Any, new_writer: Any, tmp_path: Any, wait_until: Any
) -> None:
    for index, name in enumerate(("first", "second")):
        run = new_writer(tmp_path / "runs" / name)
        run.manifest(model="m" * 200, environment={"id": "e" * 200})
        run.learning_curve(40, seed=index)
        run.video("step-000000500.gif")
    driver = page(start_server(tmp_path / "runs"))
    driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True},
    )
    try:
        wait_until(lambda: driver.find_elements("css selector", "#metrics figure"))
        driver.execute_script("document.querySelector('#metrics').scrollIntoView()")
        wait_until(lambda: drawn(driver, "train/episode_return"))
        width = driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390
        from selenium.webdriver.common.keys import Keys as keys

        seen = tab_through(driver, keys, 60)
        for wanted in ("axis", "filter", "theme", "tick", "name", "plot", "messages"):
            assert any(wanted in place for place in seen), (wanted, seen)
        plot = driver.find_element("css selector", "#returns .plot")
        driver.execute_script("arguments[0].focus()", plot)
        readout = "#returns .readout"
        latest = text_of(driver, readout)
        plot.send_keys(keys.HOME)
        first = text_of(driver, readout)
        assert "at 500 updates" in first
        plot.send_keys(keys.ARROW_RIGHT)
        assert text_of(driver, readout) not in (first, latest)
        tick = driver.find_element("css selector", "#runs input")
        tick.send_keys(keys.SPACE)
        lines = "return document.querySelector('#legend').textContent"
        wait_until(lambda: "first" not in driver.execute_script(lines))
        focused = "return document.activeElement.matches('#runs input')"
        assert driver.execute_script(focused)
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def tab_through(driver: Any, keys: Any, presses: int) -> list[str]:
    """What the Tab key reaches, by id, class or data-key."""
    script = (
        "const e = document.activeElement; return `${e.id} ${e.className} ${e.dataset.key ?? ''}`"
    )
    seen = []
    for _ in range(presses):
        driver.switch_to.active_element.send_keys(keys.TAB)
        seen.append(driver.execute_script(script))
    return seen


def test_dark_and_light_follow_the_system_and_the_choice(
    page: Any, start_server: Any, writer: Any, wait_until: Any
) -> None:
    writer.manifest()
    writer.learning_curve(40)
    driver = page(start_server(writer.folder))
    background = "return getComputedStyle(document.body).backgroundColor"
    # A pixel of the chart's own lines: the axis at its foot.
    ink = (
        "const canvas = document.querySelector('#returns canvas');"
        "const s = canvas.parentNode.chart.space;"
        "const at = [s.box.x + s.box.width / 2 + 3, s.box.y + s.box.height].map("
        "(n) => Math.round(n * canvas.width / canvas.clientWidth));"
        "return Math.max(...canvas.getContext('2d').getImageData(at[0], at[1] - 1, 1, 2).data"
        ".filter((_, i) => i % 4 < 3))"
    )
    wait_until(lambda: drawn(driver, "train/episode_return"))
    try:
        looks = {}
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            wait_until(
                lambda s=scheme: (
                    driver.execute_script("return document.documentElement.dataset.theme") == s
                )
            )
            driver.execute_async_script(
                "requestAnimationFrame(() => setTimeout(arguments[0], 300))"
            )
            looks[scheme] = (driver.execute_script(background), driver.execute_script(ink))
        assert looks["light"][0] == "rgb(245, 246, 248)"
        assert looks["dark"][0] == "rgb(16, 19, 24)"
        assert looks["light"][1] > 150 > looks["dark"][1] > 0
    finally:
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
