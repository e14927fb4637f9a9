"""One rule for every command: which project is meant, and which run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from worldflux.project.places import project_file, run_folder


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose runs go to `runs/mine`, with one run there and one elsewhere."""
    root = tmp_path / "my project ü"
    for run in (root / "runs" / "mine", tmp_path / "elsewhere"):
        run.mkdir(parents=True)
        (run / "run_manifest.json").write_text("{}")
    text = 'project_name = "a"\nenvironment = "Pendulum-v1"\nmodel = "tdmpc2:ci"\n'
    (root / "worldflux.toml").write_text(f'{text}[training]\noutput_dir = "./runs/mine"\n')
    monkeypatch.chdir(root)
    return root


@pytest.mark.parametrize("below", ["", "notes", "runs", "runs/mine/checkpoints"])
def test_a_project_is_found_from_below(
    below: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / below).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(project / below)
    assert project_file().resolve() == project / "worldflux.toml"
    assert run_folder().resolve() == project / "runs" / "mine"


def test_a_run_or_a_project_is_named_in_every_spelling(project: Path) -> None:
    run = project / "runs" / "mine"
    for given in (Path(), project, project / "worldflux.toml", Path("worldflux.toml")):
        assert run_folder(given).absolute() == run
    assert run_folder(run) == run
    assert run_folder(Path("runs/mine")) == Path("runs/mine")
    (run / "checkpoints").mkdir()
    for part in ("run_manifest.json", "checkpoints"):
        assert run_folder(run / part) == run
    assert run_folder(project.parent / "elsewhere") == project.parent / "elsewhere"
    assert project_file(project) == project_file(project / "worldflux.toml")


def test_the_run_that_one_stands_in_wins_over_the_projects(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = project / "runs" / "other"
    shutil.copytree(project / "runs" / "mine", other)
    monkeypatch.chdir(other)
    assert run_folder().resolve() == other


def test_without_a_project_the_usual_names_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (project_file(), run_folder()) == (Path("worldflux.toml"), Path("outputs"))
    assert run_folder(Path("nowhere")) == Path("nowhere")
