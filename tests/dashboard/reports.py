"""Reports as people read them: the HTML page on a desk and on a phone, and its printed pages.

    .venv/bin/python tests/dashboard/reports.py PROJECT... --out FOLDER

Writes report.html of the runs (`worldflux report`), report-desk.png, report-phone.png (390 pixels
wide) and report.pdf (A4); where pypdfium2 is installed, a picture of each page of the PDF too.
Fails where the page is wider than the phone's screen.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from chromium import start_browser

WIDTHS = {"desk": 1000, "phone": 390}
PRINTED_SCALE = 1.5  # pixels of a page's picture for each point
_SIZE = "return [document.documentElement.scrollWidth, document.documentElement.scrollHeight]"


def main() -> None:
    """Write the reports."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    page = (options.out / "report.html").resolve()
    command = [sys.executable, "-m", "worldflux", "report", *map(str, options.runs)]
    subprocess.run([*command, "--out", str(page)], check=True)
    browser = start_browser("hide-scrollbars")
    try:
        for name, width in WIDTHS.items():
            picture = taken(browser, page, width)
            (options.out / f"report-{name}.png").write_bytes(picture)
        printed = {"printBackground": True, "preferCSSPageSize": True}
        pdf = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", printed)["data"])
    finally:
        browser.quit()
    (options.out / "report.pdf").write_bytes(pdf)
    if importlib.util.find_spec("pypdfium2") is not None:
        import pypdfium2

        for earlier in options.out.glob("page-*.png"):
            earlier.unlink()
        for number, sheet in enumerate(pypdfium2.PdfDocument(pdf), 1):
            sheet.render(scale=PRINTED_SCALE).to_pil().save(options.out / f"page-{number}.png")


def taken(browser: Any, page: Path, width: int) -> bytes:
    """The whole page at a width."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page.as_uri())
    wide, high = browser.execute_script(_SIZE)
    if wide > width:
        raise SystemExit(f"the page is {wide} pixels wide on a screen of {width}")
    clip = {"x": 0, "y": 0, "width": width, "height": high, "scale": 1}
    wanted = {"captureBeyondViewport": True, "format": "png", "clip": clip}
    return base64.b64decode(browser.execute_cdp_cmd("Page.captureScreenshot", wanted)["data"])


if __name__ == "__main__":
    main()
