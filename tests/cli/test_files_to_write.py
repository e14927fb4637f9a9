"""A file that cannot be written where it was named is refused before any work, and says why."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "runs"))

from fake_train import evaluation, write_run

from worldflux.acting.answer_log import AnswerLog
from worldflux.cli.app import main
from worldflux.errors import ConfigurationError
from worldflux.files import require_place

# Command, the option that names a file, its suffix, whether missing folders are made.
OPTIONS = [
    ("runs export runs", "--out", ".csv", False),
    ("runs compare runs", "--out", ".json", False),
    ("runs compare runs", "--picture", ".svg", True),
    ("eval runs", "--csv", ".csv", False),
    ("imagine runs", "--out", ".png", True),
    ("report runs", "--out", ".html", True),
    ("verify runs", "--report", ".html", True),
    ("export runs --to torch", "--output", ".pt2", True),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a run whose agent cannot be opened: whatever does some work fails otherwise."""
    write_run(tmp_path / "runs" / "seed-0", 0, "completed", [evaluation(10, 1.0)])
    (tmp_path / "plain").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(words)
    told = capsys.readouterr().err
    assert exit_.value.code == 2, told
    assert "checkpoint" not in told
    return told


@pytest.mark.parametrize(("command", "option", "suffix", "makes_folders"), OPTIONS)
def test_a_place_where_no_file_can_be_is_refused(
    command: str,
    option: str,
    suffix: str,
    makes_folders: bool,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = sorted(here.rglob("*"))
    for folder in (".", "..", "/", "runs"):
        told = refused(capsys, *command.split(), option, folder)
        assert f"{option}: {folder} is a folder, not a file" in told
    told = refused(capsys, *command.split(), option, f"plain/x{suffix}")
    assert "plain is a file, not a folder" in told
    if not makes_folders:
        told = refused(capsys, *command.split(), option, f"new/x{suffix}")
        assert f"{option}: the folder new does not exist" in told
        assert "hint: make it: mkdir -p new" in told
    assert sorted(here.rglob("*")) == before


def test_folders_for_records_are_refused_too(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = refused(capsys, "data", "convert", "runs", "new/x.npz")
    assert "the folder new does not exist" in told
    told = refused(capsys, "verify", "runs/seed-0", "--evidence", "plain")
    assert "the folder for the evidence is a file" in told
    with pytest.raises(ConfigurationError, match="plain is a file, not a folder"):
        AnswerLog(Path("plain"), 0, print)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="nothing can be written"):
        require_place(tmp_path / "x.csv", "--out")
