"""The command, run as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..warm import Warm
from .terminal import Terminal

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def worldflux(tmp_path: Path, python: Warm) -> Command:
    """`worldflux("init", "--yes")` in an empty folder; never on a terminal.

    With `env` a process of its own: Python reads some variables only as it starts.
    """

    def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        command = ["-m", "worldflux", *arguments]
        options = {"cwd": tmp_path, "timeout": 300, **options}
        if "env" not in options:
            return python.run(*command, **options)
        options |= {"capture_output": True, "text": True, "stdin": subprocess.DEVNULL}
        return subprocess.run([sys.executable, *command], **options)

    return run


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()
