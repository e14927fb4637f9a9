"""The scanner finds what tomllib finds, at the right place, and refuses what is too large."""

from __future__ import annotations

import time
import tomllib

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from worldflux.project.toml_positions import LimitExceeded, Span, scan

TEXT = """\
top = 1 # = not a key = 2
"quo ted" . 'and dotted' = "a # no comment"
list = [ 1,
  [ "]", 'x' ], # [
  { deep = true, other.key = 2 }
]
long = \"\"\"
inside = 1
\"\"\"
[ table . "sub" ]
  key = { a = 1, b = [ 2 ] }
[[many]]
n = 1
[[many]]
n = 2
"""


def test_every_kind_of_key_is_found() -> None:
    tomllib.loads(TEXT)
    positions = scan(TEXT)
    keys = positions.keys
    assert keys[("top",)] == Span(1, 1, 3)
    assert keys[("quo ted", "and dotted")] == Span(2, 1, 24)
    assert keys[("list",)] == Span(3, 1, 4)
    assert positions.of(("list", 2, "other", "key")) == keys[("list",)]
    assert ("inside",) not in keys
    assert keys[("table", "sub")] == Span(10, 3, 13)
    assert keys[("table", "sub", "key")] == Span(11, 3, 3)
    assert positions.of(("table", "sub", "key", "b")) == keys[("table", "sub", "key")]
    assert [keys[("many", index, "n")].line for index in (0, 1)] == [13, 15]


def test_values_have_places_too() -> None:
    values = scan(TEXT).values
    assert values[("top",)] == Span(1, 7, 1)
    assert values[("list",)] == Span(3, 8)
    assert values[("long",)].line == 7
    assert values[("table", "sub", "key")] == Span(11, 9)


KEYS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
LEAVES = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20),
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)


def paths(data: object, path: tuple = ()) -> list[tuple]:
    """Every key path of parsed TOML."""
    if isinstance(data, dict):
        return [p for key, item in data.items() for p in [(*path, key), *paths(item, (*path, key))]]
    if isinstance(data, list):
        return [p for index, item in enumerate(data) for p in paths(item, (*path, index))]
    return []


@given(st.dictionaries(KEYS, VALUES, max_size=5), st.booleans())
def test_every_key_of_a_valid_text_has_a_place(data: dict, multiline: bool) -> None:
    text = tomli_w.dumps(data, multiline_strings=multiline)
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return  # a carriage return inside a multi-line string does not survive tomli_w
    positions = scan(text)
    lines = text.split("\n")
    for path in paths(parsed):
        span = positions.of(path)
        assert span is not None
        if all(isinstance(part, str) for part in path):
            assert span == positions.keys[path]
        assert 1 <= span.line <= len(lines)
        assert 1 <= span.column <= len(lines[span.line - 1])


@given(st.text(max_size=300))
def test_any_text_is_scanned_without_an_error(text: str) -> None:
    scan(text)


@given(st.text(st.sampled_from("[]{}=.,\"'#\\\n ax1"), max_size=120))
def test_any_text_of_toml_marks_is_scanned_without_an_error(text: str) -> None:
    scan(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "1" * 2_000, "line 1 has 2004 characters"),
        ("ok = 1\nx = " + "[" * 40 + "]" * 40, "nested deeper than 32"),
        ("x = " + "[\n" * 40 + "]" * 40, "nested deeper than 32"),
        ("x = " + "{a=" * 40 + "1" + "}" * 40, "nested deeper than 32"),
        (".".join("a" * 20) + " = 1", "more than 16 parts"),
        ("[" + ".".join("a" * 20) + "]", "more than 16 parts"),
        (f"[{'.'.join('a' * 16)}]\n{'.'.join('b' * 16)} = {{c = {{d = 1}}}}", "deeper than 32"),
    ],
)
def test_limits(text: str, message: str) -> None:
    with pytest.raises(LimitExceeded, match=message):
        scan(text)


def test_the_largest_file_takes_no_time() -> None:
    line = ".".join("a" * 16) + " = [" + "1," * 900 + "]\n"
    text = line * (64 * 1024 // len(line))
    start = time.process_time()
    scan(text)
    assert time.process_time() - start < 2.0
