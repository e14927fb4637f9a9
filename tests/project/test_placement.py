"""Files are placed without deleting anything and without following links."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worldflux.project.placement import examine, write

FILES = {"sub/one.txt": "one\n", "two.txt": "two\n", "worldflux.toml": "last\n"}


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every path below a folder with its content; links with their target."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "folder" if path.is_dir() else path.read_bytes()
    return found


def content(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in FILES}


@pytest.mark.parametrize("state", ["absent", "absent below absent", "empty", "other files", "git"])
def test_free_folders_are_filled(state: str, tmp_path: Path) -> None:
    root = tmp_path / "a" / "project" if "below" in state else tmp_path / "project"
    kept: dict[str, bytes | str] = {}
    if state in ("empty", "other files", "git"):
        root.mkdir()
    if state == "other files":
        (root / "notes.txt").write_text("mine")
    if state == "git":
        (root / ".git").mkdir()
        (root / ".git" / "HEAD").write_text("ref")
    kept = tree(root)
    placement = examine(root, FILES)
    assert (placement.existing, placement.blocked) == ((), ())
    assert placement.new == tuple(FILES)
    write(placement)
    assert content(root) == FILES
    assert kept.items() <= tree(root).items()
    assert not list(tmp_path.rglob("*.tmp"))


def test_existing_files_are_named_and_only_they_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "two.txt").write_text("mine")
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "model").write_text("precious")
    placement = examine(tmp_path, FILES)
    assert placement.existing == ("two.txt",)
    assert placement.new == ("sub/one.txt", "worldflux.toml")
    assert write(placement) == {"two.txt": "two.txt.bak"}
    assert content(tmp_path) == FILES
    assert (tmp_path / "outputs" / "model").read_text() == "precious"
    assert (tmp_path / "two.txt.bak").read_text() == "mine"


def test_no_copy_replaces_another_and_equal_files_are_not_copied(tmp_path: Path) -> None:
    for edit in ("first", "second", "third"):
        (tmp_path / "two.txt").write_text(edit)
        write(examine(tmp_path, FILES))
    copies = sorted(p.name for p in tmp_path.iterdir() if ".bak" in p.name)
    assert copies == ["two.txt.bak", "two.txt.bak1", "two.txt.bak2"]
    assert (tmp_path / "two.txt.bak1").read_text() == "second"
    assert write(examine(tmp_path, FILES)) == {}


def test_a_readme_of_the_folder_is_kept_unless_asked(tmp_path: Path) -> None:
    files = {**FILES, "README.md": "ours\n", ".gitignore": "ours\n"}
    for name in ("README.md", ".gitignore"):
        (tmp_path / name).write_text("mine")
    placement = examine(tmp_path, files)
    assert (placement.existing, placement.kept) == ((), ("README.md", ".gitignore"))
    write(placement)
    assert (tmp_path / "README.md").read_text() == "mine"
    assert write(examine(tmp_path, files, replace=True)).keys() == {"README.md", ".gitignore"}
    assert (tmp_path / "README.md").read_text() == "ours\n"


def make_obstacle(kind: str, tmp_path: Path) -> Path:
    """A folder that cannot take the files; what it leads to stands beside it."""
    root, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "one.txt").write_text("not ours")
    if kind == "root is a file":
        root.write_text("x")
        return root
    if kind == "root is a dangling link":
        root.symlink_to(tmp_path / "nowhere")
        return root
    root.mkdir()
    if kind == "file is a folder":
        (root / "two.txt").mkdir()
    elif kind == "file is a link":
        (root / "two.txt").symlink_to(elsewhere / "one.txt")
    elif kind == "file is a dangling link":
        (root / "two.txt").symlink_to(tmp_path / "nowhere")
    elif kind == "file is a pipe":
        os.mkfifo(root / "two.txt")
    elif kind == "subfolder is a link":
        (root / "sub").symlink_to(elsewhere)
    elif kind == "subfolder is a file":
        (root / "sub").write_text("x")
    return root


@pytest.mark.parametrize(
    "kind",
    [
        "root is a file",
        "root is a dangling link",
        "file is a folder",
        "file is a link",
        "file is a dangling link",
        "file is a pipe",
        "subfolder is a link",
        "subfolder is a file",
    ],
)
def test_obstacles_block_and_stay(kind: str, tmp_path: Path) -> None:
    root = make_obstacle(kind, tmp_path)
    assert len(examine(root, FILES).blocked) == 1
    assert (tmp_path / "elsewhere" / "one.txt").read_text() == "not ours"


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_that_cannot_be_written_is_told(exists: bool, tmp_path: Path) -> None:
    """Root may write anywhere, so the disk refuses here: the limit on file size is zero."""
    root = tmp_path / "project"
    if exists:
        root.mkdir()
        (root / "two.txt").write_text("mine")
    before = tree(tmp_path)
    code = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        "from worldflux.errors import ConfigurationError\n"
        "from worldflux.project.placement import examine, write\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        f"placement = examine(Path({str(root)!r}), {FILES!r})\n"
        "try:\n    write(placement)\n"
        "except ConfigurationError as error:\n    sys.exit(error.message)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "the project cannot be written: File too large" in done.stderr
    after = tree(tmp_path)
    assert {name: kept for name, kept in after.items() if kept != "folder"} == {
        name: kept for name, kept in before.items() if kept != "folder"
    }
    assert not list(tmp_path.rglob("*.tmp"))


KILL = """
import os, sys
from pathlib import Path
from worldflux.project.placement import examine, write
root, limit, seen = Path(sys.argv[1]), int(sys.argv[2]), 0
WATCHED = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")
def hook(event, arguments):
    global seen
    if event in WATCHED and str(root.parent) in str(arguments[0]):
        seen += 1
        if seen == limit:
            os._exit(9)
placement = examine(root, eval(sys.argv[3]))
sys.addaudithook(hook)
write(placement)
"""


@pytest.mark.parametrize("exists", [False, True])
def test_killed_at_any_event_the_project_is_absent_or_complete(
    exists: bool, tmp_path: Path
) -> None:
    """worldflux.toml, which makes a folder a project, is never there without the other files."""
    events = 0
    while True:
        events += 1
        parent = tmp_path / str(events)
        root = parent / "project"
        parent.mkdir()
        if exists:
            root.mkdir()
            (root / "notes.txt").write_text("mine")
        command = [sys.executable, "-c", KILL, str(root), str(events), repr(FILES)]
        code = subprocess.run(command, check=False).returncode
        assert code in (0, 9)
        if (root / "worldflux.toml").exists():
            assert content(root) == FILES
        for name in FILES:
            assert not (root / name).exists() or (root / name).read_text() == FILES[name]
        assert not exists or (root / "notes.txt").read_text() == "mine"
        if code == 0:
            break
        write(examine(root, FILES))  # the next try succeeds
        assert content(root) == FILES
    assert events > 8


def test_writing_a_blocked_placement_is_a_defect_of_the_caller(tmp_path: Path) -> None:
    (tmp_path / "two.txt").mkdir()
    with pytest.raises(AssertionError):
        write(examine(tmp_path, FILES))
