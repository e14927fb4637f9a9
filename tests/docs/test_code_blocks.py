"""Every code block of README.md and docs/ runs as it stands.

Python blocks are executed (those of an example package where it is installed, in
test_example_package.py, those that need a hub beside one, in tests/core/test_hub.py), TOML blocks
are loaded as a project. Of shell blocks every line is checked without its work: a command of ours
takes those arguments, a make target, an extra or a file exists.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from worldflux.cli.app import main
from worldflux.project.loader import load_project

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = ROOT / "docs" / "examples"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.S | re.M)


def blocks(language: str) -> list[object]:
    """The blocks of a language, each with its page and number as a name."""
    found = []
    for page in PAGES:
        for number, (name, text) in enumerate(FENCE.findall(page.read_text()), 1):
            elsewhere = page.is_relative_to(EXAMPLES) or "push_to_hub" in text
            if name == language and not (name == "python" and elsewhere):
                found.append(pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}"))
    return found


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    kinds = {name for page in PAGES for name, _ in FENCE.findall(page.read_text())}
    assert kinds <= {"python", "sh", "toml", "text"}


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_runs(block: str, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", block]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr


TOP = 'project_name = "p"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'


@pytest.mark.parametrize("block", blocks("toml"))
def test_a_toml_block_loads(block: str, tmp_path: Path) -> None:
    """A whole project, or sections of one."""
    is_whole = "project_name" in tomllib.loads(block)
    (tmp_path / "worldflux.toml").write_text(block if is_whole else TOP + block)
    load_project(tmp_path)


@pytest.mark.parametrize("block", blocks("sh"))
def test_a_shell_block_can_be_typed(block: str) -> None:
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and (words[0] == "time" or re.fullmatch(r"[A-Z_]+=\S*", words[0])):
            words = words[1:]
        if words:
            check_line(words)


def check_line(words: list[str]) -> None:
    command, *arguments = words
    if command == "worldflux":
        with pytest.raises(SystemExit) as exit_:  # unknown options end with 2 in spite of --help
            main([*arguments, "--help"])
        assert exit_.value.code == 0, words
    elif command == "make":
        rules = (ROOT / "Makefile").read_text()
        targets = [word for word in arguments if "=" not in word]
        assert all(re.search(rf"^{target}:", rules, re.M) for target in targets), words
    elif command in ("pip", "pipx", "uv"):
        known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extras in re.findall(r"\[([\w,-]+)\]", " ".join(arguments)):
            assert set(extras.split(",")) <= known["optional-dependencies"].keys(), words
    elif command in ("python", "python3", "pytest"):
        files = [word for word in arguments if word.endswith(".py") or word.startswith("tests/")]
        assert files, words
        assert all((ROOT / name.partition("::")[0]).exists() for name in files), words
    else:
        assert command in ("cd", "git", "tensorboard", "tail"), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
