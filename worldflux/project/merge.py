"""A three-way merge of texts, line by line: what both sides changed differently is a conflict.

Written here because the package for it on PyPI, merge3, is under the GPL, and this one is not.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from difflib import SequenceMatcher

OURS, THEIRS = "<<<<<<< yours", ">>>>>>> worldflux"
_MIDDLE = "======="
Lines = list[str]


def merge(base: str, ours: str, theirs: str) -> tuple[str, list[int]]:
    """`ours` with what `theirs` changed in `base`, and the lines at which conflicts begin.

    Nothing that `ours` added is lost: lines that both changed are kept in both forms, between
    conflict markers.
    """
    merged: Lines = []
    conflicts: list[int] = []
    for before, mine, other in _stretches(*map(_lines, (base, ours, theirs))):
        if mine == other or other == before:
            merged += mine
        elif mine == before:
            merged += other
        else:
            merged = _ended(merged)
            conflicts.append(len(merged) + 1)
            middle = [*_ended(mine), f"{_MIDDLE}\n", *_ended(other)]
            merged += [f"{OURS}\n", *middle, f"{THEIRS}\n"]
    return "".join(merged), conflicts


def is_unresolved(text: str) -> bool:
    """Whether conflict markers of an earlier merge are left in a text."""
    return {OURS, THEIRS} <= {line.rstrip("\r\n") for line in _lines(text)}


def _stretches(base: Lines, ours: Lines, theirs: Lines) -> Iterator[tuple[Lines, Lines, Lines]]:
    """The three texts in parallel: what all have in common, and what lies in between."""
    at = (0, 0, 0)
    for start, length in _in_common(base, ours, theirs):
        texts = zip((base, ours, theirs), at, start, strict=True)
        before, mine, other = (text[since:until] for text, since, until in texts)
        yield before, mine, other
        common = base[start[0] : start[0] + length]
        yield common, common, common
        at = (start[0] + length, start[1] + length, start[2] + length)


def _in_common(
    base: Lines, ours: Lines, theirs: Lines
) -> Iterator[tuple[tuple[int, int, int], int]]:
    """Where the three texts have the same lines, and how many; at last their ends."""
    mine, other = _blocks(base, ours), _blocks(base, theirs)
    while mine and other:
        (a, b, size), (c, d, other_size) = mine[0], other[0]
        start, end = max(a, c), min(a + size, c + other_size)
        if start < end:
            yield (start, b + start - a, d + start - c), end - start
        (mine if a + size < c + other_size else other).pop(0)
    yield (len(base), len(ours), len(theirs)), 0


def _blocks(base: Lines, text: Lines) -> list[tuple[int, int, int]]:
    found = SequenceMatcher(None, base, text, autojunk=False).get_matching_blocks()
    return [(block.a, block.b, block.size) for block in found if block.size]


def _lines(text: str) -> Lines:
    return list(io.StringIO(text, newline="\n"))


def _ended(lines: Lines) -> Lines:
    """The lines, the last one with its newline."""
    return lines if not lines or lines[-1].endswith("\n") else [*lines[:-1], lines[-1] + "\n"]
