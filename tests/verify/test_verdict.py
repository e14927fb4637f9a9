"""A verdict on a terminal: wrapped between words, its status in colour."""

from __future__ import annotations

import pytest

from worldflux.verify.verdict import Check, Verdict

WORDS = "imagined latents miss the observed ones by +23.1% under shuffled actions (at least +11.4%)"


@pytest.mark.parametrize("width", [80, 120])
def test_no_line_is_longer_and_no_word_is_broken(width: int) -> None:
    checks = [Check("observation model", "not_applicable", WORDS), Check("actions", "fail", WORDS)]
    verdict = Verdict("outputs", "quick", checks, warnings=[WORDS])
    painted = []

    def paint(words: str, status: str) -> str:
        painted.append((words.strip(), status))
        return words

    text = verdict.text(width, paint)
    assert max(map(len, text.splitlines())) <= width
    assert text.split().count("observed") == 3
    assert [*" ".join(text.split()).split(" ")].count("shuffled") == 3
    assert painted == [("n/a", "not_applicable"), ("FAIL", "fail"), ("FAIL", "fail")]
