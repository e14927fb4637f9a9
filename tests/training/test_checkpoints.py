"""The order in which a checkpoint is written, who may read it, and that a start is refused."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from worldflux.errors import StorageError
from worldflux.training.checkpoints import CheckpointStore


def write_two(folder: Path) -> None:
    (folder / "a").write_bytes(b"1")
    (folder / "b").write_bytes(b"22")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every flush and rename by the name of what it was done to, in order."""
    seen: list[tuple[str, str]] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def name(path: Any) -> str:
        return Path(path).name

    def flush(descriptor: int) -> None:
        seen.append(("flush", name(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def move(real: Any) -> Any:
        def moved(source: Any, target: Any) -> None:
            seen.append(("rename to", name(target)))
            real(source, target)

        return moved

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "rename", move(rename))
    monkeypatch.setattr(os, "replace", move(replace))
    return seen


def test_files_then_folder_are_flushed_before_the_rename_and_the_parent_after_it(
    tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    store.save(4, write_two)
    partial = f".tmp-step-000000004-{os.getpid()}"
    assert calls == [
        ("flush", "a"),
        ("flush", "b"),
        ("flush", f".manifest.json.{os.getpid()}.tmp"),
        ("rename to", "manifest.json"),
        ("flush", partial),
        ("rename to", "step-000000004"),
        ("flush", "checkpoints"),
    ]


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_who_may_read_follows_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        folder = CheckpointStore(tmp_path / "checkpoints").save(1, write_two)
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~umask
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o666 & ~umask}


def test_a_save_that_has_no_room_writes_nothing_and_says_needed_and_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CheckpointStore(tmp_path / "checkpoints")
    first = store.save(1, write_two)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=4_711))
    with pytest.raises(StorageError, match=r"12,345 bytes are needed, 4,711 are free") as caught:
        store.save(2, write_two, needed_bytes=12_345)
    assert "free disk space" in (caught.value.hint or "")
    assert store.newest_valid() == (first, [])
    assert store.steps() == [1]


def test_a_run_whose_checkpoints_do_not_fit_is_refused_at_the_start(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from worldflux.project.run import train_project

    usage = shutil.disk_usage(tiny_project)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
    with pytest.raises(StorageError, match=r"bytes are needed, 100,000 are free"):
        train_project(tiny_project, say=lambda line: None)
    assert not (tiny_project / "outputs" / "checkpoints").exists()
