"""The real entry point, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .terminal import Terminal

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def worldflux(tmp_path: Path) -> Command:
    """`worldflux("init", "--yes")` in an empty folder; never on a terminal."""

    def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "worldflux", *arguments]
        defaults = {"cwd": tmp_path, "stdin": subprocess.DEVNULL, "timeout": 60}
        return subprocess.run(command, capture_output=True, text=True, **{**defaults, **options})

    return run


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()
