"""The questions on a real terminal, answered through a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from worldflux.project.loader import load_project

ENTER, DOWN, INTERRUPT = "\r", "\x1b[B", "\x03"


class Terminal:
    """`worldflux` with its three streams on a pseudo-terminal."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        self.seen = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "worldflux", *arguments],
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(slave)

    def wait_for(self, text: str) -> None:
        """Read until `text` is on the screen; what was read before it is dropped."""
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += self._read()
        self.seen = self.seen.partition(text)[2]

    def answer(self, question: str, keys: str) -> None:
        self.wait_for(question)
        time.sleep(0.2)  # the prompt draws its question before it listens
        os.write(self.master, keys.encode())

    def finish(self) -> tuple[int, str]:
        """The exit code, and what was printed since the last question."""
        while self.process.poll() is None or select.select([self.master], [], [], 0)[0]:
            if select.select([self.master], [], [], 0.1)[0]:
                chunk = self._read()
                if not chunk:
                    break
                self.seen += chunk
        return self.process.wait(30), self.seen

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self.master)

    def _read(self) -> str:
        try:
            return os.read(self.master, 65_536).decode(errors="replace")
        except OSError:  # the other end is closed
            return ""


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_enter_takes_every_default(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path, "init")
    terminals.append(terminal)
    for question in ("Project name", "Environment", "Model", "Gradient updates", "Device"):
        terminal.answer(question, ENTER)
    code, shown = terminal.finish()
    assert code == 0, shown
    assert "created worldflux-project" in shown
    sections = load_project(tmp_path / "worldflux-project").sections
    assert (sections.environment, sections.model) == ("Pendulum-v1", "tdmpc2:ci")


def test_answers_are_taken_and_flags_are_not_asked(
    tmp_path: Path, terminals: list[Terminal]
) -> None:
    terminal = Terminal(tmp_path, "init", "cart", "--device", "cpu")
    terminals.append(terminal)
    terminal.answer("Environment", DOWN * 4 + ENTER)
    terminal.answer("Gymnasium id", ENTER)
    terminal.answer("Model", ENTER)
    terminal.answer("Gradient updates", "\x7f" * 10 + "70" + ENTER)
    code, shown = terminal.finish()
    assert code == 0, shown
    project = load_project(tmp_path / "cart")
    assert project.sections.environment == "CartPole-v1"
    assert project.sections.model == "dreamer:ci"
    assert project.training_config().total_steps == 70


def test_a_wrong_answer_is_told_at_once(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path, "init", "--env", "classic", "--model", "tdmpc", "--steps", "5")
    terminals.append(terminal)
    terminal.answer("Project name", "!" + ENTER)
    terminal.answer("is not allowed", "\x7f" + ENTER)
    terminal.answer("Device", ENTER)
    assert terminal.finish()[0] == 0
    assert (tmp_path / "worldflux-project" / "worldflux.toml").is_file()


def test_ctrl_c_writes_nothing_and_is_quiet(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path, "init")
    terminals.append(terminal)
    terminal.answer("Project name", INTERRUPT)
    code, shown = terminal.finish()
    assert code == 130
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_yes_asks_nothing_on_a_terminal(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path, "init", "--yes")
    terminals.append(terminal)
    code, shown = terminal.finish()
    assert code == 0
    assert "Project name" not in shown
