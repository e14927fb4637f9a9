"""The edge of the command line: exit codes, streams, messages, tracebacks only on demand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import worldflux as package
from worldflux.cli.app import COMMANDS, main

from .conftest import Command
from .terminal import Terminal


def test_help_lists_every_command(worldflux: Command) -> None:
    done = worldflux("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout
    assert "..." not in done.stdout.split("Commands:")[1]
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", [*COMMANDS, "models list", "models info"])
def test_every_command_has_help(command: str, worldflux: Command) -> None:
    done = worldflux(*command.split(), "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: worldflux {command} ")


def test_without_arguments_and_with_h_the_help_is_printed(worldflux: Command) -> None:
    full = worldflux("--help")
    for arguments in ((), ("-h",)):
        done = worldflux(*arguments)
        assert (done.returncode, done.stdout, done.stderr) == (0, full.stdout, "")
    assert worldflux("models", "list", "-h").stdout.startswith("Usage: worldflux models list ")


def test_help_speaks_to_users(worldflux: Command) -> None:
    for command in ("verify", "models import"):
        shown = worldflux(*command.split(), "--help").stdout
        assert "Raises" not in shown
        assert "default: (" not in shown


def test_version(worldflux: Command) -> None:
    assert worldflux("--version").stdout == f"worldflux {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["modls"], "Did you mean 'models'?"),
        (["models", "lst"], "Did you mean 'list'?"),
        (["models", "list", "--surfce", "all"], "--surface"),
        (["models", "info"], "Missing argument"),
        (["init", "--steps", "many"], "--steps"),
        (["train", "--resume=foo"], "'foo' is not allowed: write --resume, which"),
        (["init", "a", "b"], "unexpected extra argument"),
        (["eval", "a", "--seed", str(2**70)], "equal to 4294967295"),
        (["trust", "a", "--seed", str(2**32)], "equal to 4294967295"),
        (["serve", "a", "--seed", str(2**32)], "equal to 4294967295"),
        (["data", "record", "a", "--seed", str(2**32)], "equal to 4294967295"),
        (["train", "a", "--config", "b"], "two places are named, a and --config b"),
        *(
            ([name, "a", "--target", "b"], "two places are named, a and --target b")
            for name in ("eval", "play", "imagine", "trust", "why")
        ),
    ],
)
def test_usage_errors_exit_2(arguments: list[str], words: str, worldflux: Command) -> None:
    done = worldflux(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr


def test_an_error_says_what_and_what_next(worldflux: Command) -> None:
    done = worldflux("models", "info", "tdmpc2:6m")
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first == "error: there is no model 'tdmpc2:6m'"
    assert second.startswith("hint: did you mean 'tdmpc2:5m'")


@pytest.mark.parametrize("how", ["--debug first", "--debug last", "variable"])
def test_a_traceback_is_shown_on_demand(how: str, worldflux: Command) -> None:
    arguments = ["models", "info", "nope"]
    environment = dict(os.environ)
    if how == "variable":
        environment["WORLDFLUX_DEBUG"] = "1"
    elif how == "--debug first":
        arguments.insert(0, "--debug")
    else:
        arguments.append("--debug")
    done = worldflux(*arguments, env=environment)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert "error: there is no model 'nope'" in done.stderr


@pytest.mark.parametrize("value", ["0", ""])
def test_debugging_may_be_switched_off(value: str, worldflux: Command) -> None:
    done = worldflux("models", "info", "nope", env={**os.environ, "WORLDFLUX_DEBUG": value})
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "worldflux", "models", "info", "tdmpc2:ci"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == 0
    process.stderr.close()


def test_text_that_the_terminal_cannot_show(worldflux: Command) -> None:
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = worldflux("models", "info", "d\u00e9j\u00e0", env=ascii_only)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: there is no model 'd\\")
    assert done.stderr.isascii()


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colour_stands_only_on_a_terminal_that_wants_it(
    variables: dict[str, str], coloured: bool, tmp_path: Path, terminals: list[Terminal]
) -> None:
    terminals.append(Terminal(tmp_path, "models", "info", "nope", **variables))
    code, shown = terminals[0].finish()
    assert code == 2
    assert ("\x1b[" in shown) is coloured


def test_no_colour_in_a_pipe(worldflux: Command) -> None:
    assert "\x1b[" not in worldflux("models", "info", "nope").stderr


def test_what_the_users_own_code_raises_is_no_defect(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text("from worldflux.cli.app import run_script\n\nrun_script(lambda: [][3])\n")
    done = subprocess.run(
        [sys.executable, str(own)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {own}:3: IndexError: list index out of range\n")
    assert "defect" not in done.stderr


def test_a_tilde_after_an_equals_sign_is_the_home_folder(worldflux: Command) -> None:
    done = worldflux("config", "show", "--project=~/no-such-project")
    assert os.path.expanduser("~/no-such-project") in done.stderr


def test_a_user_without_a_home_folder_can_use_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in a container with a user that /etc/passwd does not know."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(SystemExit) as ended:
        main(["models", "info", "tdmpc2:ci"])
    assert ended.value.code == 0
    assert "tdmpc2:ci" in capsys.readouterr().out


def test_a_package_that_is_missing_is_no_defect(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from worldflux.cli.app import main; main(['train'])"
    )
    keys = 'project_name = "a"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'
    (tmp_path / "worldflux.toml").write_text(keys)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 4
    assert done.stderr.splitlines() == [
        "starting",
        "error: the package 'torch' is not installed",
        "hint: pip install torch",
    ]
