"""`worldflux doctor` by real processes: a sound machine, and broken pairs that are staged."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NEEDS_MUJOCO = pytest.mark.skipif(
    importlib.util.find_spec("dm_control") is None,
    reason="dm_control is not installed",
)


def run_doctor(*arguments: str, path: Path | None = None, **env: str) -> tuple[int, str, str]:
    environ = {**os.environ, **env}
    if path is not None:
        environ["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, "-m", "worldflux", "doctor", *arguments],
        capture_output=True,
        text=True,
        env=environ,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def failed(report: str) -> dict[str, dict[str, Any]]:
    checks = json.loads(report)["checks"]
    return {check["name"]: check for check in checks if check["status"] == "failed"}


def test_a_sound_machine_passes_and_json_is_one_object() -> None:
    code, out, err = run_doctor("--json")
    report = json.loads(out)
    assert (code, report["healthy"], failed(out)) == (0, True, {}), err
    named = {check["name"]: check for check in report["checks"]}
    assert named["torch"]["detail"][0].isdigit()
    assert "steps, and draws 400 x 600 pixels" in named["try classic control"]["detail"]
    for check in report["checks"]:
        assert check["command"] is None or check["status"] == "absent"


@NEEDS_MUJOCO
def test_known_broken_pairs_are_told_with_the_command_that_mends_them(tmp_path: Path) -> None:
    """mujoco 4 as its metadata would say it, and a mujoco without imageio."""
    staged = tmp_path / "mujoco-4.0.1.dist-info"
    staged.mkdir()
    (staged / "METADATA").write_text("Metadata-Version: 2.1\nName: mujoco\nVersion: 4.0.1\n")
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['imageio'] = None\n")
    code, out, _ = run_doctor("--json", path=tmp_path)
    commands = {c["command"]: c["detail"] for c in json.loads(out)["checks"] if c["command"]}
    assert code == 3
    assert commands["pip install 'mujoco<4'"] == "dm_control does not work with mujoco 4.0.1"
    assert "imageio" in commands["pip install 'worldflux[mujoco]'"]
    assert {"packages", "try dm_control"} <= failed(out).keys()


@NEEDS_MUJOCO
def test_a_missing_renderer_is_told_and_shown_on_screen() -> None:
    code, out, _ = run_doctor(MUJOCO_GL="osmesa")
    if "ok      rendering" in out:
        pytest.skip("this machine has OSMesa")
    assert code == 3
    assert "FAILED  rendering: MUJOCO_GL=osmesa, and there is no libOSMesa.so.8" in out
    assert "apt-get install libosmesa6" in out
    assert out.rstrip().endswith("checks failed")
