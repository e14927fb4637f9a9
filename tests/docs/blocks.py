"""The code blocks of README.md and docs/: language, file name, text, and why one is not run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

# Pages whose blocks are run from top to bottom, each list in one folder (test_tutorials.py).
STORIES = {
    "pendulum": [
        "start/first-run.md", "tutorials/fine-tune.md", "tutorials/deploy.md",
        "tutorials/five-seeds.md", "tutorials/prove.md", "howto/resume.md",
    ],
    "reach": ["start/own-environment.md"],
    "offline": ["tutorials/recorded-data.md"],
    "catch": ["tutorials/pixels.md"],
}  # fmt: skip
IN_STORIES = {DOCS / name for names in STORIES.values() for name in names}

_FENCE = re.compile(
    r'^(?:<!-- not run: ([^\n]+) -->\n)?```(\w*)(?: title="([^"\n]+)")?\n(.*?)^```$', re.S | re.M
)


@dataclass(frozen=True)
class Block:
    """One fenced block of a page.

    Attributes:
        why_not_run: the reason that its page gives, or "".
        file: the name under which a reader saves it, or "".
    """

    name: str
    page: Path
    why_not_run: str
    language: str
    file: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page in their order."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    name = page.relative_to(ROOT)
    return [Block(f"{name}-{n}", page, *parts) for n, parts in enumerate(found, 1)]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
