"""Fake official checkouts, whose programs write the official programs' own log formats."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from worldflux.backends.jobs import list_jobs

PROGRAMS = Path(__file__).parent / "programs"
MAIN = {"dreamerv3": "dreamerv3/main.py", "tdmpc2": "tdmpc2/train.py"}


@pytest.fixture(autouse=True)
def jobs_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Jobs are kept below the test's folder, and none outlives the test."""
    monkeypatch.setenv("WORLDFLUX_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    yield
    for job in list_jobs():
        job.cancel()


@pytest.fixture
def checkouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both programs in place, named by the environment variables; returns their folder."""
    root = tmp_path / "checkouts"
    for name, main in MAIN.items():
        path = root / name / main
        path.parent.mkdir(parents=True)
        path.write_text((PROGRAMS / f"{name}.py").read_text())
        monkeypatch.setenv(f"WORLDFLUX_{name.upper()}_CHECKOUT", str(root / name))
        monkeypatch.setenv(f"WORLDFLUX_{name.upper()}_PYTHON", sys.executable)
    return root
