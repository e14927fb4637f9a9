"""Progress: a live line cut to the terminal, few plain lines elsewhere, and never an error."""

from __future__ import annotations

import io
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from worldflux import progress
from worldflux.progress import Progress, counted, duration


class Tty(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    hand = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: hand.now))
    return hand


@pytest.fixture(autouse=True)
def xterm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"), (45, "45 s"), (720, "12 min"), (6321, "1 h 45 min"), (108_379, "30 h 6 min"),
        (280_000, "3 d 6 h"), (4_935_600, "57 d"), (7_090_368, "82 d"),
    ],
)  # fmt: skip
def test_durations_have_the_units_that_one_would_say(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_live_line_fits_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, clock: SimpleNamespace
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    stream = Tty()
    screen = Progress(stream)
    facts = ["4 min left", "return -168.8 (training -210.3)", "3086 env steps", "12.3 updates/s"]
    screen.phase("training", 4500, done=1234, facts=facts)
    line = stream.getvalue().removeprefix("\r").removesuffix("\x1b[K")
    assert len(line) < columns
    assert line.startswith("training 1234/4500"[: columns - 1])
    assert ("4 min left" in line) == (columns >= 40)
    assert ("3086 env steps" in line) == (columns >= 80)
    assert ("█" in line) == (columns == 200)
    assert "\n" not in stream.getvalue()


def test_a_line_that_stays_goes_above_the_live_one(clock: SimpleNamespace) -> None:
    stream = Tty()
    screen = Progress(stream)
    screen.phase("evaluating", 20, "episodes")
    screen.say("warning: something")
    screen.show(7)
    screen.close()
    told = stream.getvalue()
    assert "evaluating 0/20 episodes" in told
    assert "\x1b[Kwarning: something\n\r" in told
    assert "evaluating 7/20 episodes" in told.rpartition("\n")[2]
    assert told.endswith("\r\x1b[K")


def test_without_a_terminal_a_phase_is_told_once_and_then_at_intervals(
    clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    screen = Progress(stream, interval_s=30)
    for update in range(1000):  # 100 s of an evaluation after each update
        clock.now += 0.1
        screen.phase("training", 1000, done=update)
        screen.phase("evaluating", 20, "episodes")
        screen.show(update % 20)
    lines = stream.getvalue().splitlines()
    assert lines[:2] == ["training 0/1000", "evaluating 0/20 episodes"]
    assert 4 <= len(lines) <= 6
    assert not {"\r", "\x1b"} & set(stream.getvalue())
    monkeypatch.setenv("TERM", "dumb")
    dumb = Tty()
    Progress(dumb).phase("training", 5)
    assert dumb.getvalue() == "training 0/5\n"


def test_one_episode_is_no_plural() -> None:
    stream = io.StringIO()
    Progress(stream).phase("evaluating", 1, "episodes")
    assert stream.getvalue() == "evaluating 0/1 episode\n"


def test_quiet_leaves_warnings(clock: SimpleNamespace) -> None:
    stream = io.StringIO()
    screen = Progress(stream, quiet=True)
    screen.phase("training", 5)
    screen.say("a header")
    screen.say("warning: the device is not there")
    assert stream.getvalue() == "warning: the device is not there\n"


@pytest.mark.parametrize(
    ("stream", "options", "given", "asked", "left"),
    [
        (Tty(), {}, "y\n", True, False),
        (Tty(), {}, "\n", True, True),
        (Tty(), {}, "", True, True),  # end of file
        (Tty(), {"yes": True}, "n\n", False, False),
        (io.StringIO(), {}, "n\n", False, False),  # nobody is there to answer
    ],
)
def test_a_question_is_asked_only_where_it_can_be_answered(
    stream: Any, options: Any, given: str, asked: bool, left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyboard = Tty(given)
    monkeypatch.setattr("sys.stdin", keyboard)
    screen = Progress(stream, **options)
    with pytest.raises(SystemExit, match="1") if left else nullcontext():
        screen.confirm("this takes 57 d", "start it?")
    assert "warning: this takes 57 d\n" in stream.getvalue()
    assert ("start it? [y/N]" in stream.getvalue()) == asked


def test_a_stream_that_is_gone_ends_nothing(clock: SimpleNamespace) -> None:
    class Gone(Tty):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    screen = Progress(Gone())
    screen.phase("training", 5)
    screen.say("a line")
    screen.stopping()
    screen.close()


def test_a_terminal_without_utf8_gets_an_ascii_bar(clock: SimpleNamespace) -> None:
    class Ascii(Tty):
        encoding = "ascii"

    stream = Ascii()
    Progress(stream).phase("training", 10, done=5)
    assert "training 5/10 ##########.........." in stream.getvalue()
    assert stream.getvalue().isascii()


def test_one_is_not_a_plural() -> None:
    assert [counted(n, "episode") for n in (0, 1, 2)] == ["0 episodes", "1 episode", "2 episodes"]
    assert counted(12345, "update", ",") == "12,345 updates"
