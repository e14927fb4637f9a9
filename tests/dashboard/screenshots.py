"""Pictures of the page as a headless Chromium shows it, for the README and the documentation.

    .venv/bin/python tests/dashboard/screenshots.py RUN --out docs/images

Of a finished run's folder: the top of the page, light, dark and on a phone (dashboard-light.png,
dashboard-dark.png, dashboard-phone.png), and the agent at work, imagination and videos
(dashboard-panels.png).
"""

from __future__ import annotations

import argparse
import base64
import io
import time
from pathlib import Path
from typing import Any

from chromium import start_browser
from PIL import Image

from worldflux.dashboard import start_in_background

WIDE, PHONE = 1280, 390
TOP = 1250  # pixels of the page's top in its pictures
PANELS = ("gameplay-section", "imagination-section", "videos-section")
# Picture -> width, colour scheme, and the sections that it shows (none: the top).
PICTURES = {
    "light": (WIDE, "light", ()),
    "panels": (WIDE, "light", PANELS),
    "dark": (WIDE, "dark", ()),
    "dark-panels": (WIDE, "dark", PANELS),
    "phone": (PHONE, "light", ()),
    "phone-panels": (PHONE, "light", PANELS),
}
_SCROLL = "window.scrollTo(0, arguments[0])"
_HEIGHT = "return document.documentElement.scrollHeight"
_EDGES = """
const boxes = arguments[0].map((id) => document.getElementById(id).getBoundingClientRect());
return [Math.min(...boxes.map((b) => b.top)), Math.max(...boxes.map((b) => b.bottom))];
"""


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    kept = [name for name in PICTURES if name not in ("dark-panels", "phone-panels")]
    parser.add_argument("--pictures", nargs="+", choices=PICTURES, default=kept)
    options = parser.parse_args()
    browser = start_browser("hide-scrollbars")
    try:
        with start_in_background(options.run, port=19_865) as dashboard:
            for name in options.pictures:
                picture = taken(browser, dashboard.url, *PICTURES[name])
                small = Image.open(io.BytesIO(picture)).convert("RGB").quantize(256)
                small.save(options.out / f"dashboard-{name}.png", optimize=True)
    finally:
        browser.quit()


def taken(browser: Any, url: str, width: int, scheme: str, sections: tuple[str, ...]) -> bytes:
    """A part of the page, once everything on the page has been drawn."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width == PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wanted = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [wanted]})
    browser.get(url)
    time.sleep(5.0)
    for top in range(0, browser.execute_script(_HEIGHT), 450):  # charts are drawn when in sight
        browser.execute_script(_SCROLL, top)
        time.sleep(0.5)
    browser.execute_script(_SCROLL, 0)
    time.sleep(1.0)
    top, bottom = browser.execute_script(_EDGES, sections) if sections else (0, TOP)
    clip = {"x": 0, "y": top, "width": width, "height": bottom - top, "scale": 1}
    wanted = {"captureBeyondViewport": True, "format": "png", "clip": clip}
    return base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", wanted)["data"])


if __name__ == "__main__":
    main()
