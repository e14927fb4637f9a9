"""Memory and disk where the system does not tell them as Linux does."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldflux.data.replay import ReplayBuffer
from worldflux.errors import ConfigurationError
from worldflux.project import resources
from worldflux.project.run import train_project

VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Pages active:                            500000.
Pages inactive:                           20000.
Pages speculative:                         3000.
Pages throttled:                              0.
"""


@pytest.fixture
def no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    is_file = Path.is_file
    monkeypatch.setattr(
        Path, "is_file", lambda self: is_file(self) and self.parts[1] not in ("proc", "sys")
    )


def test_the_needs_say_that_other_programs_keep_the_cores_busy() -> None:
    needs = resources.Needs(1000, 2000, "ram", 3000, 60.0, 0.1, 0.0, 0.0, threads=4, cores=1.6)
    assert "4 threads got the time of\n  1.6 cores" in str(needs)
    assert "--set training.threads=1" in str(needs)
    assert max(map(len, str(needs).splitlines())) <= 80
    assert "busy" not in str(replace(needs, cores=3.9))
    assert "busy" not in str(replace(needs, threads=1, cores=0.5))


def test_no_line_of_the_needs_is_wider_than_a_terminal() -> None:
    sizes = (10**9, 1023 << 30, resources.MAPPED, 1023 << 20)
    lines = str(resources.Needs(*sizes, 48.6 * 3600, 0.0123, 0.0456, 0.0789)).splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == ["needs:", "needs:", "needs:", "12.3"]


@pytest.mark.parametrize(
    ("setting", "where", "message"),
    [
        ("architecture.hidden_dim=10_000_000", "worldflux.toml:", "weights of the model need"),
        (
            "architecture.hidden_dim=10_000_000_000",
            "worldflux.toml:",
            "the model needs more memory",
        ),
        (f"architecture.num_samples={10**15}", "architecture", "an action needs more"),
        (f"training.batch_size={10**15}", "training.batch_size", "a batch needs more"),
        (f"training.batch_size={2**62}", "training.batch_size", "a batch needs more memory"),
    ],
)
def test_a_model_or_batch_without_the_memory_for_it_is_refused(
    setting: str, where: str, message: str, tiny_project: Path
) -> None:
    before = sorted(tiny_project.iterdir())
    with pytest.raises(ConfigurationError, match=f"this run cannot fit: .*{message}") as refused:
        train_project(tiny_project, overrides=[setting], say=lambda line: None)
    assert where in str(refused.value.where)
    assert refused.value.hint is not None
    assert sorted(tiny_project.iterdir()) == before


@pytest.mark.usefixtures("no_proc")
def test_macos_tells_its_free_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = subprocess.CompletedProcess(["vm_stat"], 0, VM_STAT, "")
    monkeypatch.setattr(resources.subprocess, "run", lambda *args, **kwargs: done)
    assert resources.free_memory() == 33_000 * 16_384
    assert resources.choose_storage("auto", 300 << 20, 0, tmp_path) == resources.MAPPED
    assert resources.choose_storage("auto", 200 << 20, 0, tmp_path) == resources.RAM


@pytest.mark.usefixtures("no_proc")
def test_where_nothing_tells_half_of_what_is_built_in_counts_as_free() -> None:
    built_in = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert resources.free_memory() == built_in // 2


def test_a_mapped_replay_needs_no_posix_fallocate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr(os, "posix_fallocate")
    buffer = ReplayBuffer(100, (3, 64, 64), 1, scratch=tmp_path)
    images = np.full((5, 3, 64, 64), 7, np.uint8)
    buffer.add_episode(images, np.zeros((4, 1)), np.ones(4))
    rows = buffer.rows(0, 5)
    assert rows["obs/"].sum() == images.sum()
    assert rows["reward"].sum() == 4

    def full(*args: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ConfigurationError, match=r"needs .* bytes; .*No space left"):
        ReplayBuffer(100, (3, 64, 64), 1, scratch=tmp_path)
