"""No file outside a run folder is opened, by whatever name or link."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worldflux.dashboard.contained import list_contained, open_contained


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("SECRET")
    run = tmp_path / "run"
    (run / "videos").mkdir(parents=True)
    (run / "videos" / "a.gif").write_text("inside")
    (run / "videos" / "link.gif").symlink_to(tmp_path / "secret")
    (run / "up").symlink_to(tmp_path)
    os.mkfifo(run / "videos" / "pipe.gif")
    os.link(run / "videos" / "a.gif", run / "videos" / "hard.gif")
    return run


def test_regular_files_inside_open(folder: Path) -> None:
    with open_contained(folder, "videos", "a.gif") as file:
        assert file.read() == b"inside"


@pytest.mark.parametrize(
    "names",
    [
        ("videos", "link.gif"),
        ("videos", "pipe.gif"),
        ("videos", "missing.gif"),
        ("videos", ".."),
        ("videos",),
        ("up", "secret"),
        ("..", "secret"),
        ("videos/../../secret",),
        ("", "secret"),
        ("videos", "a.gif\0"),
        ("videos", "a.gif", "b"),
    ],
)
def test_everything_else_is_not_found(folder: Path, names: tuple[str, ...]) -> None:
    descriptors = set(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError), open_contained(folder, *names):
        pass
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_a_run_folder_may_itself_be_reached_by_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(folder)
    with open_contained(tmp_path / "alias", "videos", "a.gif") as file:
        assert file.read() == b"inside"


def test_listings_leave_links_and_pipes_out(folder: Path) -> None:
    assert [entry.name for entry in list_contained(folder, "videos")] == ["a.gif", "hard.gif"]
    assert [entry.name for entry in list_contained(folder, directories=True)] == ["videos"]
    assert list_contained(folder, "up") == []
