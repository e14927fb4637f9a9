"""A headless Chromium for tests: the fixtures `driver`, `page` and `wait_until`, and
questions to a page.

Without a browser, or without selenium, the tests that need one are named as skipped.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
DRIVER = shutil.which("chromedriver")


def start_browser(*arguments: str) -> Any:
    """A headless Chromium; arguments of its command line without their dashes."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    always = ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage")
    for argument in (*always, *arguments):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(DRIVER)  # selenium would look for one on the network
    return webdriver.Chrome(options=options, service=service)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """One browser for a module's tests."""
    pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no headless browser: apt-get install chromium chromium-driver")
    browser = start_browser()
    browser.set_window_size(1400, 1000)
    yield browser
    browser.quit()


@pytest.fixture
def page(driver: Any, wait_until: Any) -> Iterator[Any]:
    """Opens a server's page and waits until it is live; the window is wide again afterwards."""

    def open_page(server: Any) -> Any:
        driver.get_log("browser")
        kept = {"origin": server.url.rstrip("/"), "storageTypes": "local_storage"}
        driver.execute_cdp_cmd("Storage.clearDataForOrigin", kept)
        driver.get(server.url)
        wait_until(lambda: text_of(driver, "#connection") == "live")
        return driver

    yield open_page
    driver.set_window_size(1400, 1000)
    driver.get("about:blank")


@pytest.fixture
def wait_until() -> Callable[..., Any]:
    """Polls until a call gives something true: (call, seconds) -> what it gave."""

    def wait(call: Callable[[], Any], seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            result = call()
            if result:
                return result
            time.sleep(0.05)
        raise AssertionError(f"still nothing after {seconds} s")

    return wait


def text_of(driver: Any, selector: str) -> str:
    return str(driver.execute_script(f"return document.querySelector({selector!r}).textContent"))


def problems(driver: Any) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
