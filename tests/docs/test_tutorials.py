"""The tutorials run as their pages say, from top to bottom, with small numbers.

Bash reads the blocks; `worldflux` and `python` are functions that hand their arguments to this
process, which has imported torch already.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from blocks import DOCS, STORIES, blocks_of

from worldflux.cli.app import main

TINY = {
    "TRAINING__TOTAL_STEPS": "12",
    "TRAINING__BATCH_SIZE": "8",
    "ONLINE_COLLECTION__WARMUP_TRANSITIONS": "120",
    "ONLINE_COLLECTION__PRETRAIN": "false",
    "EVALUATION__EPISODES": "1",
    "VERIFY__EPISODES": "2",
    "GAMEPLAY__ENABLED": "false",
}
SHORT = {"ENVIRONMENT_KWARGS__MAX_EPISODE_STEPS": "30"}
PLANNER = {
    "ARCHITECTURE__NUM_SAMPLES": "8",
    "ARCHITECTURE__NUM_ELITES": "4",
    "ARCHITECTURE__NUM_PI_TRAJS": "2",
    "ARCHITECTURE__ITERATIONS": "1",
}
SIZES = {
    "pendulum": {**TINY, **SHORT, **PLANNER},
    "reach": {**TINY, **SHORT, **PLANNER},
    "offline": {**TINY, **PLANNER},
    "catch": {**TINY, "TRAINING__BATCH_SIZE": "2"},
}
# Verdicts on agents that have not learned: 3 is the answer, not a fault.
MAY_FAIL = {"verify", "report"}
PRELUDE = """
ask() { printf '%s\\0' "$PWD" "$@" >&3; printf '\\n' >&3; read -r code <&4; return "$code"; }
worldflux() { ask worldflux "$@"; }
python() { ask python "$@"; }
"""


@pytest.mark.parametrize("story", STORIES)
def test_the_pages_of_a_story_run(
    story: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in SIZES[story].items():
        monkeypatch.setenv(f"WORLDFLUX_{name}", value)
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path
    for name in STORIES[story]:
        for block in blocks_of(DOCS / name):
            if block.why_not_run:
                continue
            if block.file:
                (folder / block.file).write_text(block.text)
            elif block.language == "sh":
                folder = run_in_bash(block.text.replace("--seeds 5", "--seeds 2"), folder)
            elif block.language == "python":
                exec_in(folder, block.text)


def run_in_bash(text: str, folder: Path) -> Path:
    """Run a block in a folder; returns the folder that it ends in."""
    (asked, asks), (answered, answers) = os.pipe(), os.pipe()
    shell = subprocess.Popen(
        ["bash", "-euc", f"exec 3>&{asks} 4<&{answered}\n{PRELUDE}{text}\npwd"],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(asks, answered),
    )
    os.close(asks)
    os.close(answered)
    with os.fdopen(asked) as questions, os.fdopen(answers, "w", buffering=1) as replies:
        for line in questions:
            where, *words = line.rstrip("\n").split("\0")[:-1]
            code = answer(words, Path(where))
            replies.write(f"{code}\n")
    printed, _ = shell.communicate(timeout=30)
    assert shell.returncode == 0, text
    return Path(printed.splitlines()[-1])


def answer(words: list[str], folder: Path) -> int:
    """Do what bash was asked to do; returns the exit code that the page expects as 0."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        if words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
            return 0
        with pytest.raises(SystemExit) as exit_:
            main(words[1:])
    finally:
        os.chdir(before)
    code = int(exit_.value.code or 0)
    return 0 if code == 3 and words[1] in MAY_FAIL else code


def exec_in(folder: Path, text: str) -> None:
    script = folder / "_block.py"
    script.write_text(text)
    answer(["python", str(script)], folder)
