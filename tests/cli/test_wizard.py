"""The questions on a real terminal, answered through a pseudo-terminal."""

from __future__ import annotations

from pathlib import Path

from worldflux.project.loader import load_project

from .terminal import Terminal

ENTER, DOWN, INTERRUPT = "\r", "\x1b[B", "\x03"


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
    assert project.sections.model == "dreamerv3:laptop"
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
