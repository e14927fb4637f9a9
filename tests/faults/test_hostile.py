"""The judge of hostile inputs sees what it should see: work, waits, hangs, execution, no name."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hostile import HANGS_S, Door, refusal

from worldflux.errors import ConfigurationError

LIMIT_S = 0.3


def _refuse(path: Path) -> object:
    raise ConfigurationError("no such thing", where=str(path))


def _busy(path: Path) -> object:
    end = time.thread_time() + 2 * LIMIT_S
    while time.thread_time() < end:
        pass
    return _refuse(path)


def _waiting(path: Path) -> object:
    time.sleep(2 * LIMIT_S)
    return _refuse(path)


def _hanging(path: Path) -> object:
    os.mkfifo(path / "pipe")
    return (path / "pipe").read_text()


def _unnamed(path: Path) -> object:
    raise ConfigurationError("somewhere something is wrong")


def _broken(path: Path) -> object:
    raise KeyError("a")


def _executing(path: Path) -> object:
    (path.parent / "canary").mkdir()
    return _refuse(path)


@pytest.mark.parametrize(
    ("door", "outcome"),
    [
        (_refuse, "refused"),
        (_busy, "slow"),
        (_waiting, "slow"),
        (_hanging, "hangs"),
        (_unnamed, "somewhere something is wrong"),
        (_broken, "KeyError"),
        (_executing, "executed"),
        (str, "accepted"),
    ],
)
def test_the_judge(door: Door, outcome: str, tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    hangs_s = 2.0 if door is _hanging else HANGS_S
    assert outcome in refusal(given, door, tmp_path, LIMIT_S, hangs_s).outcome
