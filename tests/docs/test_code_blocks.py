"""Every code block of README.md and docs/ runs, or says why not.

Python blocks are executed (those of an example package where it is installed, in
test_example_package.py, those that need a hub with one, in tests/core/test_hub.py, those of
tutorials in test_tutorials.py), TOML blocks are loaded as a project. Of every shell block each line
is checked without its work: a command of ours takes those arguments, a make target, an extra or a
file exists.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from blocks import BLOCKS, DOCS, IN_STORIES, PAGES, ROOT, Block

from worldflux.cli.app import main
from worldflux.project.loader import load_project

from ..warm import Warm


def blocks(language: str) -> list[object]:
    """The blocks of a language by name; of Python those that run by themselves, and are to."""
    return [
        pytest.param(block.text, id=block.name)
        for block in BLOCKS
        if block.language == language and not (language == "python" and runs_elsewhere(block))
    ]


def runs_elsewhere(block: Block) -> bool:
    is_an_example = block.page.is_relative_to(DOCS / "examples")
    elsewhere = is_an_example or block.page in IN_STORIES or "push_to_hub" in block.text
    return elsewhere or bool(block.why_not_run)


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {block.language for block in BLOCKS} <= {"python", "sh", "toml", "json", "c", "text"}


def test_every_shell_or_c_block_runs_or_says_why_not() -> None:
    silent = [
        block.name
        for block in BLOCKS
        if block.language in ("sh", "c") and not block.why_not_run and block.page not in IN_STORIES
    ]
    assert silent == []


@pytest.mark.parametrize("block", blocks("json"))
def test_a_json_block_is_json(block: str) -> None:
    assert json.loads(block)


@pytest.mark.parametrize("block", blocks("python"))
def test_a_python_block_runs(block: str, tmp_path: Path, python: Warm) -> None:
    done = python.run("-W", "error", "-c", block, cwd=tmp_path)
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
        if words[:1] in (["for"], ["done"]):
            continue
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
        saved = {block.file for block in BLOCKS}
        assert files, words
        names = [name.partition("::")[0] for name in files]
        assert all((ROOT / name).exists() or Path(name).name in saved for name in names), words
    else:
        assert command in ("cd", "curl", "git", "mkdir", "tensorboard", "tail"), words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
