"""Commands that need no tensors load no torch, nor anything else that costs time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "numpy", "gymnasium", "matplotlib", "safetensors", "PIL", "rich", "questionary"}
REPORT = """
import atexit, sys
atexit.register(lambda: print(*sorted({m.partition(".")[0] for m in sys.modules}), file=sys.stderr))
from worldflux.cli.app import main
main()
"""


def loaded_by(folder: Path, *arguments: str) -> set[str]:
    command = [sys.executable, "-c", REPORT, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "also"),
    [
        (["--help"], ["pydantic", "jinja2", "tomli_w"]),
        (["--version"], ["pydantic", "jinja2", "tomli_w"]),
        (["models", "list", "--surface", "all", "--verbose"], ["jinja2", "tomli_w"]),
        (["models", "list", "--json"], ["jinja2", "tomli_w"]),
        (["models", "info", "dreamer:ci"], ["jinja2", "tomli_w"]),
        (["init", "project", "--yes"], []),
        (["init", "project", "--dry-run"], []),
        (["train", "--help"], ["jinja2"]),
    ],
    ids=str,
)
def test_light_commands(arguments: list[str], also: list[str], tmp_path: Path) -> None:
    loaded = loaded_by(tmp_path, *arguments)
    assert "worldflux" in loaded
    assert loaded & {*HEAVY, *also} == set()


def test_commands_on_a_project_are_light(tmp_path: Path) -> None:
    loaded_by(tmp_path, "init", "project", "--yes")
    for command in (["config", "show"], ["config", "set", "training.seed", "7"], ["update"]):
        assert loaded_by(tmp_path / "project", *command) & HEAVY == set()


@pytest.mark.parametrize(
    "statement",
    [
        "import worldflux",
        "from worldflux import DreamerV3Config, TDMPC2Config, list_models, get_config",
        "from worldflux.core.config import TDMPC2Config",
        "from worldflux.training.config import TrainingConfig",
        "from worldflux.project.loader import load_project",
        "from worldflux.models.catalog import list_models; list_models(verbose=True)",
    ],
)
def test_light_imports(statement: str, tmp_path: Path) -> None:
    code = f"{statement}\nimport sys\nprint('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "False\n", done.stderr
