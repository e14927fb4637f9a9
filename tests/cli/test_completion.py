"""Completion in the real shells: the script that is shown is sourced, and TAB is asked for."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worldflux.models.catalog import list_models

from .conftest import Command

# Asks bash as readline does: the line is cut at COMP_WORDBREAKS before the function is called.
BASH = r"""
set -e
source "$1"
COMP_LINE=$2
COMP_POINT=${#COMP_LINE}
read -r -a COMP_WORDS <<< "$(printf '%s' "$COMP_LINE" | sed 's/[:=]/ & /g')"
[[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_worldflux_completion worldflux
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def on_path(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which `worldflux` is this checkout's, and HOME is empty."""
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "worldflux"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m worldflux "$@"\n')
    command.chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(folder)}


def script(shell: str, environment: dict[str, str]) -> Path:
    file = Path(environment["HOME"]) / f"completion.{shell}"
    if file.exists():
        return file
    done = subprocess.run(
        ["worldflux", "--show-completion", shell],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    file.write_text(done.stdout)
    return file


def asked(shell: str, line: str, environment: dict[str, str], folder: Path) -> list[str]:
    """What the shell offers at the end of this line."""
    source = str(script(shell, environment))
    if shell == "fish":
        command = ["fish", "-c", 'source $argv[1]; complete -C "$argv[2]"', source, line]
    else:
        command = ["bash", "-c", BASH, "bash", source, line]
    done = subprocess.run(
        command, env=environment, cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    return [offer.split("\t")[0] for offer in done.stdout.splitlines() if offer]


LINES = {
    "worldflux ver": ["verify"],
    "worldflux models ": ["list", "info", "compare", "import", "export"],
    "worldflux train --res": ["--resume"],
    "worldflux models info tdmpc2:5m": ["tdmpc2:5m", "tdmpc2:5m_legacy"],
    "worldflux models info dreamerv3:": [n for n in list_models(surface="public") if "v3:" in n],
    "worldflux init --model tdmpc2:lap": ["tdmpc2:laptop"],
    "worldflux init --env Pendulum-": ["Pendulum-v1"],
    "worldflux train --device=cu": ["cuda"],
    "worldflux train --set training.see": ["training.seed="],
    "worldflux train --set model=tdmpc2:ci": ["model=tdmpc2:ci"],
    "worldflux verify --mode pr": ["proof"],
    "worldflux eval --checkpoint la": ["last"],
}


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_the_shell_offers(shell: str, line: str, on_path: dict[str, str], tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    offers = asked(shell, line, on_path, tmp_path)
    typed = line.rpartition(" ")[2]
    kept = max(typed.rfind(":"), typed.rfind("=")) + 1 if shell == "bash" else 0
    words = [(typed[:kept] + offer).removeprefix("--device=") for offer in offers]
    assert sorted(words) == sorted(LINES[line])


SHELLS = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}
STARTS = {"bash": "", "zsh": "autoload -Uz compinit; compinit -u; "}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_on_a_terminal(shell: str, on_path: dict[str, str], tmp_path: Path) -> None:
    """A word with a colon, an option with `=`, and a file, which the shell completes itself."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (tmp_path / "notes.toml").touch()
    master, slave = pty.openpty()
    process = subprocess.Popen(
        SHELLS[shell],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        env={**on_path, "TERM": "dumb"},
        cwd=tmp_path,
    )

    def type_and_see(keys: str, expected: str) -> None:
        os.write(master, keys.encode())
        seen, deadline = "", time.monotonic() + 60
        while expected not in seen:
            assert time.monotonic() < deadline, f"{expected!r} did not come: {seen!r}"
            if select.select([master], [], [], 0.1)[0]:
                seen += os.read(master, 65_536).decode(errors="replace")

    try:
        type_and_see(f"{STARTS[shell]}. {script(shell, on_path)}; echo re''ady\n", "ready\r\n")
        type_and_see("worldflux models info tdmpc2:lap\t", "info tdmpc2:laptop ")
        type_and_see("\x15worldflux init --model=tdmpc2:lap\t", "--model=tdmpc2:laptop ")
        type_and_see("\x15worldflux train --config no\t", "--config notes.toml ")
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_installs_for_the_named_shell(
    shell: str, on_path: dict[str, str], tmp_path: Path
) -> None:
    done = subprocess.run(
        ["worldflux", "--install-completion", shell],
        env={**on_path, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    written = "\n".join(p.read_text() for p in tmp_path.rglob("*") if p.is_file())
    assert f"complete_{shell}" in written


def test_an_unknown_shell_and_no_completion_below_the_root(worldflux: Command) -> None:
    done = worldflux("--show-completion", "tcsh")
    assert done.returncode == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in done.stderr
    assert worldflux("data", "--install-completion").returncode == 2


@pytest.mark.parametrize("words", ["models info td", "train --set tr", "init --env P", "tr"])
def test_completion_loads_no_torch_and_says_nothing_else(words: str, tmp_path: Path) -> None:
    (tmp_path / "worldflux.toml").write_text("broken =")
    code = (
        "import atexit, sys; from worldflux.cli.app import main\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "sys.argv = ['worldflux']; main()"
    )
    pieces = ["worldflux", *words.split()]
    asked_by_bash = {
        "_WORLDFLUX_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(pieces),
        "COMP_CWORD": str(len(pieces) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **asked_by_bash},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "False\n")
    assert done.stdout
