"""A three-way merge: both sides' changes, or a marked conflict; never a lost line."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from worldflux.project.merge import OURS, is_unresolved, merge

LINES = st.sampled_from([f"{letter}\n" for letter in "abcdefg"])
TEXTS = st.lists(LINES, max_size=12).map("".join)
RAGGED = st.text(st.sampled_from("ab\n\r\x0c"), max_size=20)  # no newline at the end, and others
BASE = "one\ntwo\nthree\nfour\n"


def added(before: str, after: str) -> Counter[str]:
    return Counter(after.split("\n")) - Counter(before.split("\n"))


def test_changes_in_different_places_are_both_taken() -> None:
    ours, theirs = BASE.replace("one", "ONE"), BASE.replace("four", "4\n5")
    assert merge(BASE, ours, theirs) == ("ONE\ntwo\nthree\n4\n5\n", [])


def test_different_changes_of_one_line_are_marked() -> None:
    text, conflicts = merge(BASE, BASE.replace("two", "2"), BASE.replace("two", "II"))
    assert text == "one\n<<<<<<< yours\n2\n=======\nII\n>>>>>>> worldflux\nthree\nfour\n"
    assert conflicts == [2]
    assert is_unresolved(text)
    assert not is_unresolved(BASE)


def test_a_line_that_ours_deleted_stays_deleted() -> None:
    ours, theirs = BASE.replace("two\n", ""), BASE.replace("four", "4")
    assert merge(BASE, ours, theirs) == ("one\nthree\n4\n", [])


@given(TEXTS | RAGGED, TEXTS | RAGGED)
def test_one_sided_changes_are_taken_as_they_are(base: str, changed: str) -> None:
    assert merge(base, changed, base) == (changed, [])
    assert merge(base, base, changed) == (changed, [])
    assert merge(base, changed, changed) == (changed, [])


@given(TEXTS | RAGGED, TEXTS | RAGGED, TEXTS | RAGGED)
def test_what_either_side_added_is_in_the_result(base: str, ours: str, theirs: str) -> None:
    text, conflicts = merge(base, ours, theirs)
    for side in (ours, theirs):
        assert added(base, side) <= Counter(text.split("\n")) + Counter([""])
    lines = text.split("\n")
    assert [n for n, line in enumerate(lines, 1) if line == OURS] == conflicts
    assert merge(theirs, text, theirs) == (text, [])
