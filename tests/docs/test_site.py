"""The documentation site builds without a warning, is complete, and needs no network."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

import worldflux
import worldflux.training
from worldflux.cli.app import COMMANDS
from worldflux.project.schema import project_schema
from worldflux.training import callbacks

sys.path.insert(0, str(Path(__file__).parents[1] / "dashboard"))
sys.path.insert(0, str(Path(__file__).parent))

from built import Page, pages
from chromium import CHROMIUM, DRIVER, start_browser

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def built(site: Path) -> dict[Path, Page]:
    return pages(site)


def test_every_link_leads_to_a_page_and_an_anchor_that_exist(built: dict[Path, Page]) -> None:
    broken = []
    for page in built.values():
        for link in page.links:
            target = page.target(link)
            if target is None:
                continue
            file, anchor = target
            is_lost = anchor and file in built and anchor not in built[file].anchors
            if not file.exists() or is_lost:
                broken.append(f"{page.path.name}: {link}")
    assert len(built) > 20
    assert broken == []


def test_no_page_loads_anything_from_another_machine(built: dict[Path, Page], site: Path) -> None:
    loaded = {link for page in built.values() for link in page.loaded}
    assert any(link.endswith(".js") for link in loaded)
    assert [link for link in loaded if re.match(r"\w+://|//", link)] == []
    styles = "".join(file.read_text(encoding="utf-8") for file in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import )['\"]?(?:https?:)?//[^)]*", styles) == []


def test_twenty_questions_are_answered_within_two_clicks(
    built: dict[Path, Page], site: Path
) -> None:
    questions = re.findall(r"^\| .+\? \| \[", (DOCS / "questions.md").read_text(), re.M)
    home = built[(site / "index.html").resolve()]
    first = {target[0] for link in home.in_article if (target := home.target(link))}
    list_ = built[(site / "questions.html").resolve()]
    assert list_.path in first
    answers = [list_.target(link) for link in list_.in_article]
    assert len(answers) == len(questions) == 20
    for answer in answers:
        assert answer is not None
        assert answer[0] in built
        assert not answer[1] or answer[1] in built[answer[0]].anchors


def test_the_search_works_from_a_folder_without_a_network(site: Path) -> None:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("no headless browser: apt-get install chromium chromium-driver")
    from selenium.webdriver.support.ui import WebDriverWait

    browser = start_browser("host-resolver-rules=MAP * ~NOTFOUND")
    try:
        browser.get((site / "index.html").as_uri())
        browser.execute_script("document.querySelector('label[for=__search]').click()")
        words = browser.find_element("css selector", "input.md-search__input")
        found = ".md-search-result__item a"
        wait = WebDriverWait(browser, 60)
        wait.until(lambda _: words.is_displayed())
        words.send_keys("warmup_transitions")
        links = wait.until(lambda page: page.find_elements("css selector", found))
        assert any("project-file.html" in str(link.get_attribute("href")) for link in links)
        assert browser.get_log("browser") == []
    finally:
        browser.quit()


def test_every_public_name_is_in_the_reference_once() -> None:
    texts = [page.read_text(encoding="utf-8") for page in sorted((DOCS / "reference").glob("*.md"))]
    listed = [name for text in texts for name in re.findall(r"^::: ([\w.]+)$", text, re.M)]
    packages = (worldflux, worldflux.training)
    public = {f"{package.__name__}.{name}" for package in packages for name in package.__all__}
    public |= {f"{callbacks.__name__}.{n}" for n in vars(callbacks) if n.endswith("Callback")}
    public -= {"worldflux.__version__"}
    assert sorted(listed) == sorted(public)


def test_every_key_has_a_row_with_its_meaning(site: Path) -> None:
    schema = project_schema()
    page = (site / "reference" / "project-file.html").read_text(encoding="utf-8")
    rows = re.findall(r"<tr>\s*<td><code>(\w+)</code></td>.*?<td>([^\n]*)</td>\s*</tr>", page, re.S)
    sections = [part for part in schema["$defs"].values() if "properties" in part]
    keys = {key for part in [*sections, schema] for key in part["properties"]}
    keys -= {name for name, part in schema["properties"].items() if "$ref" in part}
    assert {"total_steps", "storage", "threshold", "horizon"} <= keys
    assert keys - {"architecture"} <= {key for key, _ in rows}
    assert all(meaning for _, meaning in rows)


def test_the_fields_of_a_configuration_say_what_they_mean(site: Path) -> None:
    page = (site / "reference" / "training.html").read_text(encoding="utf-8")
    assert "worldflux.training.TrainingConfig.total_steps" in page
    assert "gradient updates of the run" in page


def test_every_command_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert all(f"Usage: worldflux {name}" in page for name in COMMANDS)
