"""`worldflux imagine` on a run that trained for real."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from worldflux.errors import ConfigurationError
from worldflux.project.imagine import imagine_run
from worldflux.project.run import train_project


def test_a_run_is_imagined_from_the_command_line(tiny_project: Path) -> None:
    folder = train_project(tiny_project, say=lambda line: None).folder
    picture = tiny_project / "seen.png"
    command = [sys.executable, "-m", "worldflux", "imagine", "--target", str(folder), "--json"]
    command += ["--horizon", "6", "--episodes", "2", "--out", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["environment"] == "Pendulum-v1"
    assert report["skill"]["horizon"] == 6
    assert set(report["skill"]["errors"]) == {"reward", "value"}  # TD-MPC2 without a decoder
    for name in ("picture", "video", "numbers"):
        written = Path(report[name])
        assert (written.parent, written.stem) == (tiny_project, "seen")
        assert written.stat().st_size > 100
    with pytest.raises(ConfigurationError, match=r"\.png"):
        imagine_run(folder, out=tiny_project / "seen.jpg")
