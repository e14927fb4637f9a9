"""MuJoCo's warnings leave no file behind, and are not printed by each process again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mujoco")

PROGRAM = """
import mujoco
from worldflux.envs.make import make_environment
for _ in range(2):
    env = make_environment("HalfCheetah-v5")  # its model has a deprecated attribute
    env.reset(seed=0)
    env.unwrapped.data.qvel[0] = float("nan")
    mujoco.mj_step(env.unwrapped.model, env.unwrapped.data)
"""


def test_a_deprecation_is_dropped_and_a_fault_is_told_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert list(tmp_path.iterdir()) == []
    told = [line for line in done.stderr.splitlines() if "mujoco" in line.lower()]
    assert len(told) == 1, done.stderr
    assert "QVEL" in told[0]
