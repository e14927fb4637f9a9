"""The questions on a real terminal, answered through a pseudo-terminal."""

from __future__ import annotations

from pathlib import Path

from worldflux.project.answers import CHOICES, PICKED
from worldflux.project.loader import load_project

from .terminal import Terminal

ENTER, DOWN, INTERRUPT = "\r", "\x1b[B", "\x03"


def test_enter_takes_every_default(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path, "init")
    terminals.append(terminal)
    for question in (
        "Project name",
        "Environment",
        "Model",
        "Gradient updates",
        "Device",
        "Create worldflux-project: Pendulum-v1, tdmpc2:ci, 4,500 updates on auto?",
    ):
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
    terminal.answer("Gradient updates", "many" + ENTER)
    terminal.answer("a whole number above 0", "\x7f" * 4 + "1_0e2" + ENTER)
    terminal.answer("Create cart", ENTER)
    code, shown = terminal.finish()
    assert code == 0, shown
    project = load_project(tmp_path / "cart")
    assert project.sections.environment == "CartPole-v1"
    assert project.sections.model == "dreamerv3:laptop"
    assert project.training_config().total_steps == 1000


def test_a_wrong_answer_is_told_at_once(tmp_path: Path, terminals: list[Terminal]) -> None:
    terminal = Terminal(tmp_path, "init", "--env", "classic", "--model", "tdmpc", "--steps", "5")
    terminals.append(terminal)
    terminal.answer("Project name", "!" + ENTER)
    terminal.answer("is not allowed: a name has 1 to 63 letters", "\x7fwalker" + ENTER)
    terminal.answer("Device", ENTER)
    terminal.answer("Create walker", ENTER)
    assert terminal.finish()[0] == 0
    assert (tmp_path / "walker" / "worldflux.toml").is_file()


def test_a_taken_folder_is_told_before_any_other_question(
    tmp_path: Path, terminals: list[Terminal]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "train.py").write_text("mine")
    terminal = Terminal(tmp_path, "init", "taken")
    terminals.append(terminal)
    code, shown = terminal.finish()
    assert code == 2
    assert "files of this name exist already: train.py" in shown
    assert "Environment" not in shown
    terminal = Terminal(tmp_path, "init")
    terminals.append(terminal)
    terminal.answer("Project name", "taken" + ENTER)
    terminal.answer("exist already", "\x7f" * 5 + "free" + ENTER)
    terminal.answer("Environment", INTERRUPT)
    assert terminal.finish()[0] == 130


def test_no_choice_is_cut_at_60_columns() -> None:
    """The pointer takes three of them."""
    for key, choice in CHOICES.items():
        assert len(f"{key:<8} {choice.environment}: {choice.description}") <= 57
    assert max(len(purpose) for purpose in PICKED.values()) <= 57 - 23 - 9


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
