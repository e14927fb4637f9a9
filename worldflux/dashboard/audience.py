"""Who looks on: a page beside training stays until everybody knows how the run ended."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

# Browsers let a hidden tab speak once a minute.
AWAY_S = 75.0
MAX_PAGES = 256
PAGE_ID = re.compile(r"[0-9a-z]{1,16}", re.ASCII)


@dataclass
class Audience:
    """The open pages by their own random names, and whether the trainer beside is gone."""

    again: str | None = None  # the command that shows the run later, once the trainer is gone
    _seen: dict[str, float] = field(default_factory=dict)

    def saw(self, page: str) -> None:
        """A page has asked something."""
        if PAGE_ID.fullmatch(page) and (page in self._seen or len(self._seen) < MAX_PAGES):
            self._seen[page] = time.monotonic()

    def left(self, page: str) -> None:
        """A page needs nothing more."""
        self._seen.pop(page, None)

    def is_there(self) -> bool:
        """Whether some page may still ask."""
        now = time.monotonic()
        return any(now - seen < AWAY_S for seen in self._seen.values())
