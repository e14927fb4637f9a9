"""`update`: what the user changed stays, what templates changed arrives, conflicts are named."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldflux.errors import ConfigurationError
from worldflux.project.answers import complete
from worldflux.project.document import parsed
from worldflux.project.loader import load_project
from worldflux.project.merge import OURS, THEIRS, is_unresolved
from worldflux.project.placement import examine, write
from worldflux.project.scaffold import render, templates_root
from worldflux.project.template_record import record_of, recorded_base, settle
from worldflux.project.update import Update, apply_update, plan_update

EXAMPLES = int(os.environ.get("WORLDFLUX_TEST_EXAMPLES", "10"))
VERSIONS = 3


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Today's templates, and two that changed lines, added some, and added and dropped files."""
    parent = tmp_path_factory.mktemp("templates")
    folders = [Path(shutil.copytree(templates_root(), parent / f"v{n}")) for n in range(VERSIONS)]
    for number, folder in enumerate(folders[1:], 1):
        toml = folder / "worldflux.toml.j2"
        text = toml.read_text().replace("seed = 42", f"seed = {42 + number}  # v{number}")
        text += f'\n[logging]\ngroup = "v{number}"\n'
        toml.write_text(text.replace("# Every setting", f"# v{number}: every setting"))
        train = folder / "train.py.j2"
        train.write_text(train.read_text().replace('"""Train', f'"""v{number}: train'))
        (folder / f"new-{number}.txt").write_text(f"v{number}\n")
    (folders[2] / "local_dashboard.py.j2").unlink()
    return folders


def project(root: Path, templates: Path) -> Path:
    """A project as `init --template` writes it."""
    answers = complete("agent", total_steps=100)
    files = render(answers, templates)
    write(examine(root, {**record_of(answers, files, str(templates)), **files}))
    return root


def update(root: Path, templates: Path) -> Update:
    planned = plan_update(root, str(templates))
    apply_update(planned)
    return planned


def test_both_sides_changes_arrive_and_the_record_moves_on(
    tmp_path: Path, versions: list[Path]
) -> None:
    root = project(tmp_path / "p", versions[0])
    toml = root / "worldflux.toml"
    toml.write_text(toml.read_text().replace("batch_size = 128", "batch_size = 64  # mine"))
    (root / "train.py").chmod(0o755)
    done = update(root, versions[1])
    assert [change.name for change in done.changes] == ["new-1.txt", "train.py", "worldflux.toml"]
    assert not done.conflicts
    loaded = load_project(root)
    assert (loaded.training.batch_size, loaded.training.seed) == (64, 43)
    assert loaded.sections.logging.group == "v1"
    assert (root / "train.py").read_text().startswith('"""v1: train')
    assert (root / "train.py").stat().st_mode & 0o777 == 0o755
    assert (
        recorded_base(root).items()
        <= render(complete("agent", total_steps=100), versions[1]).items()
    )
    assert plan_update(root).changes == ()  # the new place of the templates is recorded


def test_conflicts_are_marked_named_and_not_merged_over(
    tmp_path: Path, versions: list[Path]
) -> None:
    root = project(tmp_path / "p", versions[0])
    toml = root / "worldflux.toml"
    toml.write_text(toml.read_text().replace("seed = 42", "seed = 7"))
    (conflict,) = update(root, versions[1]).conflicts
    lines = toml.read_text().split("\n")
    assert conflict.name == "worldflux.toml"
    assert lines[conflict.conflicts[0] - 1 :][:5] == [
        OURS, "seed = 7", "=======", "seed = 43  # v1", THEIRS,
    ]  # fmt: skip
    again = plan_update(root)
    assert (again.changes, again.unresolved) == ((), ("worldflux.toml",))
    with pytest.raises(ConfigurationError, match="markers of an earlier update are left"):
        plan_update(root, str(versions[2]))


def test_a_merged_file_that_no_longer_loads_is_named(tmp_path: Path, versions: list[Path]) -> None:
    root = project(tmp_path / "p", versions[0])
    toml = root / "worldflux.toml"
    toml.write_text(toml.read_text().replace("[data]", '[logging]\ngroup = "mine"\n\n[data]'))
    (conflict,) = update(root, versions[1]).conflicts
    assert conflict.conflicts == ()
    assert "logging" in str(conflict.problem)


def test_files_deleted_by_the_user_stay_deleted_and_own_files_stay(
    tmp_path: Path, versions: list[Path]
) -> None:
    root = project(tmp_path / "p", versions[0])
    (root / "train.py").unlink()
    (root / "new-1.txt").write_text("mine\n")
    first = update(root, versions[1])
    assert not (root / "train.py").exists()
    assert (root / "new-1.txt").read_text() == "mine\n"
    assert first.kept == ("new-1.txt",)
    second = update(root, versions[2])
    assert second.dropped == ("local_dashboard.py",)
    assert (root / "local_dashboard.py").exists()
    assert (root / "new-2.txt").read_text() == "v2\n"


def test_windows_newlines_stay(tmp_path: Path, versions: list[Path]) -> None:
    root = project(tmp_path / "p", versions[0])
    file = root / "worldflux.toml"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert not update(root, versions[1]).conflicts
    assert file.read_bytes().count(b"\r\n") == file.read_bytes().count(b"\n")
    assert load_project(root).training.seed == 43
    file.write_bytes(file.read_bytes().replace(b"seed = 43", b"seed = 7"))
    assert update(root, versions[2]).conflicts
    assert is_unresolved(file.read_bytes().decode())


def test_a_project_without_a_record_gets_a_proposal(tmp_path: Path, versions: list[Path]) -> None:
    root = project(tmp_path / "p", templates_root())
    shutil.rmtree(root / ".worldflux")
    toml = root / "worldflux.toml"
    toml.write_text(toml.read_text().replace("seed = 42", "seed = 7"))
    mine = toml.read_text()
    planned = plan_update(root)
    assert not planned.recorded
    assert [change.name for change in planned.changes] == [
        ".worldflux/schema.json",
        "worldflux.toml",
    ]
    assert "-seed = 7" in list(planned.changes[1].diff())
    assert apply_update(planned) == {"worldflux.toml": "worldflux.toml.bak"}
    assert (root / "worldflux.toml.bak").read_text() == mine
    assert load_project(root).training.total_steps == 100  # by the answers that the file implies
    assert plan_update(root).changes == ()


@pytest.mark.parametrize("make", [lambda p: p.symlink_to("README.md"), lambda p: p.mkdir()])
def test_what_is_no_regular_file_is_refused(
    make: Callable[[Path], None], tmp_path: Path, versions: list[Path]
) -> None:
    root = project(tmp_path / "p", versions[0])
    (root / "train.py").unlink()
    make(root / "train.py")
    before = tree(root)
    with pytest.raises(ConfigurationError, match=r"train\.py is (a symbolic link|not a regular)"):
        update(root, versions[1])
    assert tree(root) == before


# --------------------------------------------------------------------------- random edits

LINES = st.sampled_from(["", "# mine", "mine = 1", "seed = 8", "[logging]", "seed = 42"]) | st.text(
    st.characters(codec="utf-8", exclude_characters="\n"), max_size=12
)
NAMES = ("worldflux.toml", "train.py", "README.md", "local_dashboard.py", ".gitignore", "new-1.txt")
EDITS = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.sampled_from(["insert", "replace", "delete", "move", "crlf", "remove file"]),
        st.floats(0, 1),
        LINES,
    ),
    max_size=6,
)


def edit(root: Path, name: str, operation: str, where: float, line: str) -> None:
    file = root / name
    if operation == "remove file":
        file.unlink(missing_ok=True)
        return
    if operation == "crlf":
        text = file.read_bytes() if file.exists() else b""
        file.write_bytes(text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
        return
    lines = file.read_bytes().decode().split("\n") if file.exists() else []
    at = round(where * len(lines))
    taken = [] if operation == "insert" else lines[at : at + 2]
    del lines[at : at + len(taken)]
    if operation == "move":
        lines = [*taken, *lines]
    elif operation != "delete":
        lines.insert(at, line)
    file.write_bytes("\n".join(lines).encode())


def resolve(root: Path, names: list[str]) -> None:
    """Both versions of each conflict, as a user might keep them."""
    for name in names:
        lines = (root / name).read_bytes().decode().split("\n")
        kept = [line for line in lines if line.rstrip("\r") not in (OURS, "=======", THEIRS)]
        (root / name).write_bytes("\n".join(kept).encode())


def loads(text: bytes | None) -> bool:
    try:
        load_project(parsed(Path("worldflux.toml"), (text or b"").decode()), environ={})
    except ConfigurationError:
        return False
    return True


def lines_of(text: bytes | str | None) -> Counter[str]:
    text = text.decode() if isinstance(text, bytes) else text or ""
    return Counter(text.replace("\r\n", "\n").split("\n"))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.permutations(range(VERSIONS)), st.lists(EDITS, min_size=2, max_size=2))
def test_no_line_of_the_user_is_lost_and_every_conflict_is_named(
    tmp_path_factory: pytest.TempPathFactory,
    versions: list[Path],
    order: list[int],
    edits: list[list],
) -> None:
    root = project(tmp_path_factory.mktemp("edited") / "p", versions[order[0]])
    for version, changes in zip(order[1:], edits, strict=True):
        for change in changes:
            edit(root, *change)
        before, base = tree(root), recorded_base(root)
        done = update(root, versions[version])
        after = tree(root)
        for name, text in before.items():
            if not name.startswith(".worldflux/"):
                own = lines_of(text) - lines_of(base.get(name))
                assert own <= lines_of(after[name]) + Counter([""]), name
        deleted = base.keys() - before.keys()
        assert not deleted & after.keys()
        marked = {n for n in NAMES if n in after and is_unresolved(after[n].decode())}
        assert marked == {change.name for change in done.conflicts if change.conflicts}
        if "worldflux.toml" not in marked and loads(before.get("worldflux.toml")):
            named = "worldflux.toml" in {change.name for change in done.conflicts}
            assert loads(after.get("worldflux.toml")) is not named
        again = update(root, versions[version])
        assert again.changes == ()
        assert tree(root) == after
        resolve(root, sorted(marked))


# --------------------------------------------------------------------------- killed in an update

KILL = """
import os, shutil, sys
from pathlib import Path
from worldflux.project.update import apply_update, plan_update
root, template, copies = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
step = int(sys.argv[4])
WATCHED = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod")
plan_update(root, template)  # imports and caches everything
def die_at(copy, limit):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in WATCHED and str(copy) in str(arguments[0]):
            seen += 1
            if seen == limit:
                os._exit(9)
    sys.addaudithook(hook)
    apply_update(plan_update(copy, template))
    os._exit(0)
limit = code = 1
while code:
    copy = shutil.copytree(root, copies / str(limit))
    pid = os.fork()
    if not pid:
        die_at(copy, limit)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9), code
    limit += step
"""


def small_templates(folder: Path, number: int) -> Path:
    folder.mkdir()
    top = 'project_name = "agent"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'
    (folder / "worldflux.toml.j2").write_text(f"{top}[training]\nseed = {number}\n")
    (folder / "notes.txt").write_text(f"first\nsecond\nthird\n{number}\n")
    (folder / "gone.txt").write_text(f"{number}\n")
    (folder / f"new-{number}.txt").write_text("new\n")
    return folder


def test_killed_at_any_event_each_file_is_old_or_new_and_an_update_finishes(tmp_path: Path) -> None:
    before, after = (small_templates(tmp_path / f"v{n}", n) for n in range(2))
    root = project(tmp_path / "p", before)
    toml, notes = root / "worldflux.toml", root / "notes.txt"
    toml.write_text(toml.read_text().replace("seed = 0", "seed = 7"))  # a conflict
    notes.write_text(notes.read_text().replace("first", "mine"))
    (root / "gone.txt").unlink()
    old = tree(root)
    first = killed_everywhere(root, after)
    halfway = [place for place in first if (place / ".worldflux/update/files/notes.txt").exists()]
    second = killed_everywhere(shutil.copytree(halfway[0], tmp_path / "halfway"), after)
    assert [change.name for change in update(root, after).conflicts] == ["worldflux.toml"]
    new = tree(root)
    for place in (*first, *second):
        left = tree(place)
        for name in {*old, *new, *left}:
            if not name.startswith(".worldflux/"):
                assert left.get(name) in (old.get(name), new.get(name)), (place, name)
        update(place, after)
        assert tree(place) == new, place


def killed_everywhere(root: Path, templates: Path) -> list[Path]:
    """A copy of the project for each file event of an update, which was killed there."""
    copies = root.with_name(f"{root.name}-killed")
    copies.mkdir()
    step = 1 if EXAMPLES >= 500 else 3  # `make fuzz` tries them all
    command = [sys.executable, "-c", KILL, str(root), str(templates), str(copies), str(step)]
    subprocess.run(command, check=True, timeout=300)
    assert len(list(copies.iterdir())) > 30 // step
    return sorted(copies.iterdir(), key=lambda path: int(path.name))


def test_a_record_that_was_not_finished_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path / "p", small_templates(tmp_path / "v0", 0))
    shutil.rmtree(root / ".worldflux")
    after = small_templates(tmp_path / "v1", 1)

    def stop_at_toml(source: Path, target: Path) -> None:
        if target == root / "worldflux.toml":
            raise KeyboardInterrupt
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("worldflux.project.template_record._move", stop_at_toml)
        with pytest.raises(KeyboardInterrupt):
            update(root, after)
    settle(root)
    assert not plan_update(root, str(after)).recorded
    update(root, after)
    assert load_project(root).training.seed == 1
