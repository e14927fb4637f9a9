"""Where a page stands in the logs of each run, as text for an event's id and for a URL."""

from __future__ import annotations

import re

from worldflux.dashboard.jsonl import Mark

CURSOR = re.compile(r"([0-9a-f]{12})\.(\d{1,20})\.(\d{1,18})\.(\d{1,20})\.(\d{1,18})", re.ASCII)


def format_cursor(run_id: str, metrics: Mark, evaluations: Mark) -> str:
    """Where a reader of this run stands in its two logs, as one word."""
    places = (metrics.inode, metrics.offset, evaluations.inode, evaluations.offset)
    return ".".join([run_id, *(str(place) for place in places)])


def parse_cursors(text: str) -> dict[str, tuple[Mark, Mark]]:
    """The marks of each run named in a comma-separated list; malformed words are passed over."""
    cursors: dict[str, tuple[Mark, Mark]] = {}
    for word in text.split(","):
        match = CURSOR.fullmatch(word)
        if match is not None:
            run_id, *places = match.groups()
            a, b, c, d = (int(place) for place in places)
            cursors[run_id] = (Mark(a, b), Mark(c, d))
    return cursors
