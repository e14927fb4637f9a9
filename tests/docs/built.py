"""The built site as a browser meets it: its pages with what they link to and load."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src"}


@dataclass
class Page(HTMLParser):
    """One HTML file: anchors, the links of its article, all its links, files that it loads."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    in_article: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self._article = False
        self.feed(self.path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self._article = self._article or tag == "article"
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
            if self._article and "headerlink" not in values.get("class", ""):
                self.in_article.append(values["href"])
        if tag in LOADED and LOADED[tag] in values:
            self.loaded.append(values[LOADED[tag]])

    def handle_endtag(self, tag: str) -> None:
        self._article = self._article and tag != "article"

    def target(self, link: str) -> tuple[Path, str] | None:
        """The file and anchor of a link inside the site, or None for one that leaves it."""
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            return None
        file = self.path if not parts.path else self.path.parent / unquote(parts.path)
        return file.resolve(), unquote(parts.fragment)


def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site by its file; 404.html is written for a server's root."""
    files = (file.resolve() for file in site.rglob("*.html") if file.name != "404.html")
    return {file: Page(file) for file in files}
