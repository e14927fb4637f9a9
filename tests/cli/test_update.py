"""`worldflux update`, `config`, and `init` with templates and answers of one's own."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from worldflux.cli.app import main
from worldflux.project.scaffold import templates_root

from .conftest import Command

Here = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Here:
    """A command in this process: its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        shown = capsys.readouterr()
        return int(str(exit_.value.code)), shown.out, shown.err

    return run


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    """Templates of a team: ours, one of them extended, and a file of theirs."""
    folder = Path(shutil.copytree(templates_root(), tmp_path / "team" / "templates"))
    (folder / "train.py.j2").write_text('{% include "worldflux/train.py.j2" %}\n# ours\n')
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("not a template")
    (folder / "notes.txt").write_text("{{ as it is }}\n")
    return folder


def test_check_show_and_apply(
    tmp_path: Path, templates: Path, here: Here, worldflux: Command
) -> None:
    assert here("init", "p", "--template", "team/templates")[0] == 0
    root = tmp_path / "p"
    assert (root / "train.py").read_text().endswith("# ours\n")
    assert (root / "notes.txt").read_text() == "{{ as it is }}\n"
    assert not (root / ".git").exists()
    assert here("update", "p", "--check")[0] == 0

    (templates / "notes.txt").write_text("more\n")
    code, shown, _ = here("update", "p", "--check")
    assert (code, shown.splitlines()[1:]) == (1, ["updated  notes.txt"])
    code, shown, _ = here("update", "p", "--dry-run")
    assert code == 0
    assert "-{{ as it is }}\n+more\n" in shown
    assert (root / "notes.txt").read_text() == "{{ as it is }}\n"

    (root / "notes.txt").write_text("mine\n")
    done = worldflux("update", cwd=root)
    assert (done.returncode, done.stdout.splitlines()[1:]) == (3, ["conflict notes.txt: line 1"])
    code, shown, _ = here("update", "p", "--check")
    assert code == 1
    assert "conflict notes.txt: markers of an earlier update are left" in shown


def test_without_a_record_nothing_is_written_unless_accepted(tmp_path: Path, here: Here) -> None:
    here("init", "p")
    shutil.rmtree(tmp_path / "p" / ".worldflux")
    (tmp_path / "p" / "train.py").write_text("mine\n")
    code, shown, said = here("update", "p")
    assert code == 1
    assert "-mine\n" in shown
    assert "worldflux update --accept" in said
    assert (tmp_path / "p" / "train.py").read_text() == "mine\n"
    code, _, said = here("update", "p", "--accept")
    assert (code, said) == (0, "replaced train.py; the old one is train.py.bak\n")
    assert here("update", "p")[1].startswith("up to date")


def test_answers_from_a_file_and_templates_from_a_package(
    tmp_path: Path, templates: Path, here: Here
) -> None:
    (templates.parent / "__init__.py").write_text("raise SystemExit('nothing is imported')\n")
    (tmp_path / "answers.toml").write_text(
        'name = "robot"\nenvironment = "CartPole-v1"\ntotal_steps = 50\ntemplate = "team"\n'
    )
    code, _, said = here("init", "p", "--answers", "answers.toml", "--steps", "60")
    assert (code, said) == (0, "")
    data = tomllib.loads((tmp_path / "p" / "worldflux.toml").read_text())
    assert (data["project_name"], data["training"]["total_steps"]) == ("robot", 60)
    assert (tmp_path / "p" / "train.py").read_text().endswith("# ours\n")
    recorded = tomllib.loads((tmp_path / "p" / ".worldflux" / "answers.toml").read_text())
    assert (recorded["template"], recorded["total_steps"]) == ("team", 60)

    (tmp_path / "answers.toml").write_text('name = 3\nstep = 5\nmodel = "tdmpc3"\n')
    code, _, said = here("init", "q", "--answers", "answers.toml")
    assert code == 2
    for place in ("answers.toml:1:8: name = 3", "answers.toml:2:1: unknown", "answers.toml:3:9"):
        assert place in said
    assert not (tmp_path / "q").exists()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("train.py.j2", "{{ unknown }}", "train.py.j2: not a usable template: 'unknown' is und"),
        ("train.py.j2", "\n{% if %}", "train.py.j2:2: not a usable template"),
        ("train.py.j2", "{{ answers.__class__.__mro__ }}", "is unsafe"),
        ("worldflux.toml.j2", "seed = 3\n", "worldflux.toml:1:1: unknown key 'seed'"),
        ("worldflux.toml.j2", None, "there are no templates in 'team/templates'"),
        ("train.py.j2", Path("/etc/hostname"), "train.py.j2: a template is a regular file"),
    ],
    ids=str,
)
def test_unusable_templates(
    name: str,
    text: str | Path | None,
    message: str,
    tmp_path: Path,
    templates: Path,
    here: Here,
) -> None:
    (templates / name).unlink()
    if isinstance(text, Path):
        (templates / name).symlink_to(text)
    elif text is not None:
        (templates / name).write_text(text)
    code, _, said = here("init", "p", "--template", "team/templates")
    assert code == 2
    assert message in said
    assert not (tmp_path / "p").exists()


def test_settings_are_shown_and_set(tmp_path: Path, here: Here) -> None:
    here("init", "p")
    said = here("config", "set", "training.seed", "7", "--project", "p")
    assert said == (0, "p/worldflux.toml:33:8: training.seed = 7\n", "")
    _, shown, _ = here("config", "show", "--origin", "--project", "p")
    assert "seed = 7 " in shown
    assert "# p/worldflux.toml:33\n" in shown
    (tmp_path / "p" / "worldflux.toml").write_text(shown)
    _, again, _ = here("config", "show", "--project", "p")
    assert tomllib.loads(again) == tomllib.loads(shown)
    code, out, _ = here("config", "set", "architecture.vmin", "-9.5", "--project", "p")
    assert (code, out.endswith("architecture.vmin = -9.5\n")) == (0, True)
    shown = (tmp_path / "p" / "worldflux.toml").read_text()
    code, _, wrong = here("config", "set", "training.seed", "x", "--project", "p")
    assert code == 2
    assert "p/worldflux.toml:" in wrong
    assert (tmp_path / "p" / "worldflux.toml").read_text() == shown
