"""`worldflux init` off a terminal: flags, refusals, and what it leaves alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from worldflux.project.answers import complete
from worldflux.project.loader import load_project
from worldflux.project.scaffold import render
from worldflux.project.template_record import ANSWERS_FILE, BASE

from .conftest import Command

FILES = sorted(render(complete("agent")))
SHOWN = sorted([*FILES, ANSWERS_FILE])
GENERATED = sorted([*SHOWN, *(BASE + name for name in FILES if "/" not in name)])


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_project_in_one_command(tmp_path: Path, worldflux: Command) -> None:
    done = worldflux("init", "agent", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "created agent: Pendulum-v1 with tdmpc2:ci",
        "    cd agent",
        "    worldflux train",
    ]
    assert sorted(tree(tmp_path / "agent")) == GENERATED
    assert load_project(tmp_path / "agent").sections.project_name == "agent"


def test_it_never_asks_off_a_terminal(tmp_path: Path, worldflux: Command) -> None:
    assert worldflux("init").returncode == 0
    assert load_project(tmp_path / "worldflux-project").sections.model == "tdmpc2:ci"


def test_every_answer_is_a_flag(tmp_path: Path, worldflux: Command) -> None:
    flags = (
        "--name cart --env CartPole-v1 --model dreamer-ci --steps 50 --batch-size 4 --device cpu"
    )
    assert worldflux("init", "sub/folder", *flags.split()).returncode == 0
    project = load_project(tmp_path / "sub" / "folder")
    assert project.sections.project_name == "cart"
    assert project.sections.environment == "CartPole-v1"
    assert project.sections.model == "dreamer:ci"
    training = project.training_config()
    assert (training.total_steps, training.batch_size, training.device) == (50, 4, "cpu")


def test_the_folder_takes_the_name_and_the_other_way_round(
    tmp_path: Path, worldflux: Command
) -> None:
    worldflux("init", "--name", "robot")
    assert load_project(tmp_path / "robot").sections.project_name == "robot"
    here = tmp_path / "here"
    here.mkdir()
    done = worldflux("init", ".", cwd=here)
    assert "cd " not in done.stdout
    assert load_project(here).sections.project_name == "here"


@pytest.mark.parametrize("choice", ["mujoco", "atari", "dmc"])
def test_the_install_command_of_a_missing_extra_is_shown(choice: str, worldflux: Command) -> None:
    done = worldflux("init", "agent", "--env", choice)
    assert done.returncode == 0
    module = {"mujoco": "mujoco", "atari": "ale_py", "dmc": "dm_control"}[choice]
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import importlib.util as u; print(u.find_spec({module!r}) is None)",
        ],
        capture_output=True,
        text=True,
    )
    shown = f"pip install 'worldflux[{choice}]'" in done.stdout
    assert shown is (found.stdout == "True\n")


def test_a_dry_run_writes_nothing(tmp_path: Path, worldflux: Command) -> None:
    done = worldflux("init", "agent", "--dry-run")
    assert done.returncode == 0
    assert sorted(line.split()[1] for line in done.stdout.splitlines()[:-1]) == SHOWN
    assert tree(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


def test_existing_files_are_left_alone_without_force(tmp_path: Path, worldflux: Command) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "train.py").write_text("mine")
    before = tree(tmp_path)
    for extra in ([], ["--yes"], ["--dry-run"]):
        done = worldflux("init", "agent", *extra)
        assert (done.returncode, done.stdout) == (2, "")
        assert "exist already: train.py" in done.stderr
        assert "--force" in done.stderr
        assert tree(tmp_path) == before


def test_force_replaces_edited_files_names_them_and_keeps_copies(
    tmp_path: Path, worldflux: Command
) -> None:
    worldflux("init", "agent")
    folder = tmp_path / "agent"
    fresh = tree(folder)
    (folder / "train.py").write_text("mine")
    (folder / "outputs" / "checkpoints").mkdir(parents=True)
    (folder / "outputs" / "checkpoints" / "model").write_text("precious")
    (folder / "notes.md").write_text("mine")
    done = worldflux("init", "agent", "--force")
    assert done.returncode == 0
    assert done.stderr == "replaced train.py; the old one is train.py.bak\n"
    kept = {"outputs/checkpoints/model": b"precious", "notes.md": b"mine", "train.py.bak": b"mine"}
    assert tree(folder) == {**fresh, **kept}


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_links_are_not_followed(force: list[str], tmp_path: Path, worldflux: Command) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("mine")
    (tmp_path / "outside").mkdir()
    folder = tmp_path / "agent"
    folder.mkdir()
    (folder / "train.py").symlink_to(secret)
    (folder / ".worldflux").symlink_to(tmp_path / "outside")
    done = worldflux("init", "agent", *force)
    assert done.returncode == 2
    assert "train.py is a symbolic link" in done.stderr
    assert ".worldflux is a symbolic link" in done.stderr
    assert secret.read_text() == "mine"
    assert list((tmp_path / "outside").iterdir()) == []
    assert sorted(p.name for p in folder.iterdir()) == [".worldflux", "train.py"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [("my project", "my-project"), ("r\u00f6bot", "robot"), ("../beside", "beside")],
)
def test_any_usual_folder_is_taken(
    folder: str, name: str, tmp_path: Path, worldflux: Command
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    done = worldflux("init", folder, cwd=here)
    assert done.returncode == 0, done.stderr
    assert load_project(here / folder).sections.project_name == name
    quoted = done.stdout.splitlines()[1].removeprefix("    cd ")
    shown = subprocess.run(
        ["sh", "-c", f"cd {quoted} && pwd -P"], cwd=here, capture_output=True, text=True
    )
    assert Path(shown.stdout.strip()) == (here / folder).resolve()


def test_a_git_clone_keeps_its_readme(tmp_path: Path, worldflux: Command) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".git").mkdir()
    done = worldflux("init", ".", "--name", "agent")
    assert done.returncode == 0, done.stderr
    assert "your README.md stayed" in done.stdout
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("env", "warning", "hint"),
    [
        ("NoSuchEnv-v0", "cannot be made", "list the known ids"),
        ("nope-v0", "cannot be made", "list the known ids"),
        ("Pendulum-v7", "cannot be made", "did you mean 'Pendulum-v1'"),
        ("my_module:Mine-v0", "there is no module 'my_module'", "put my_module.py next to"),
    ],
)
def test_an_environment_that_cannot_be_built_is_told_at_once(
    env: str, warning: str, hint: str, tmp_path: Path, worldflux: Command
) -> None:
    done = worldflux("init", "agent", "--env", env)
    assert done.returncode == 0
    first, second = done.stderr.splitlines()
    assert first.startswith(f"warning: environment '{env}'")
    assert warning in first
    assert hint in second
    assert load_project(tmp_path / "agent").sections.environment == env


@pytest.mark.parametrize(
    ("env", "line"),
    [
        ("Hopper-v5", "episodic = true"),
        ("HalfCheetah-v5", "# episodic = true"),
        ("CartPole-v1", ""),
        ("Pendulum-v1", ""),
    ],
)
def test_tdmpc2_learns_where_episodes_end(env: str, line: str, tmp_path: Path) -> None:
    text = render(complete("agent", env))["worldflux.toml"]
    lines = [row for row in text.splitlines() if "episodic" in row]
    assert [row.startswith(line) for row in lines] == [True] * bool(line)


HOSTILE = ['a"b', "a'b", "a\nb", "{{ x }}", "\U0001f600", "-rf", "CON", "a" * 300]


@pytest.mark.parametrize(
    "arguments",
    # Folders may be anywhere, a name may not.
    [*([f"--name={name}"] for name in [*HOSTILE, "../x", "/etc/x"]), *(["--", n] for n in HOSTILE)],
    ids=ascii,
)
def test_hostile_names_write_nothing(
    arguments: list[str], tmp_path: Path, worldflux: Command
) -> None:
    done = worldflux("init", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--env", "mujocco"], "did you mean 'mujoco'"),
        (["--env", "CartPole-v1", "--model", "tdmpc2:ci"], "discrete actions"),
        (["--model", "tdmpc3"], "there is no model"),
        (["--steps", "0"], "total_steps = 0"),
        (["--batch-size", "-4"], "batch_size = -4"),
        (["--device", "gpu"], "device = 'gpu'"),
    ],
)
def test_wrong_answers_write_nothing(
    flags: list[str], words: str, tmp_path: Path, worldflux: Command
) -> None:
    done = worldflux("init", "agent", *flags)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert list(tmp_path.iterdir()) == []


WATCH = """
import os, sys
from pathlib import Path
from worldflux.cli.app import main

root = os.getcwd() + os.sep
processes = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn")
changes = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink")

def hook(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    outside = (writes or event in changes) and not os.path.abspath(arguments[0]).startswith(root)
    if event.startswith(processes) or outside:
        os.write(2, f"{event} {arguments}".encode())
        os._exit(99)

sys.dont_write_bytecode = True
sys.argv = ["worldflux", "init", "agent", "--yes"]
sys.addaudithook(hook)
main()
"""


def test_no_network_no_process_and_no_file_outside(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WATCH], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert sorted(tree(tmp_path / "agent")) == GENERATED
