"""An environment that breaks its word is told at that step, by name and key."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from misbehaving import Misbehaving

from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.vector import VectorEnvironment
from worldflux.errors import EnvironmentFault

STEP_TIMEOUT_S = 2.0
KEYS = {
    "raise in reset": "reset",
    "raise in step": "step",
    "kill itself": "step",
    "exit": "step",
    "hang": "step",
    "NaN observation": "observation['joints']",
    "infinite reward": "reward",
    "wrong shape": "observation['camera']",
    "wrong dtype": "observation['camera']",
}


def broken_at(how: str, step: int) -> Any:
    """Environment 1 of two breaks its word; a fresh copy after a restart does not."""
    made = {"before": False}

    def make(index: int) -> Misbehaving:
        # A process is forked: what the test marks later, only a restarted one finds.
        return Misbehaving("none" if index == 0 or made["before"] else how, step)

    return make, made


def workers(envs: VectorEnvironment) -> list[int]:
    return [process.pid for process in envs._processes]


def gone(pid: int, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("at", [1, 3, 100])
@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("how", list(KEYS))
def test_a_broken_environment_is_told_at_its_step(how: str, mode: Any, at: int) -> None:
    make, _ = broken_at(how, at)
    if how == "raise in reset" and at == 1:
        make = _breaks_at_once
    envs = VectorEnvironment("Bad-v0", make, 2, mode=mode, step_timeout_s=STEP_TIMEOUT_S)
    buffer = ReplayBuffer(500, envs.spec.replay_shapes, 2, num_envs=2)
    collector = Collector(envs, buffer, seed=0)
    pids = workers(envs)
    for _ in range(at - 1):
        collector.collect_random()
    began = time.monotonic()
    with pytest.raises(EnvironmentFault) as caught:
        collector.collect_random()
    fault = caught.value
    assert time.monotonic() - began < STEP_TIMEOUT_S + 2.0
    told_step = 0 if how == "raise in reset" and at == 1 else at
    assert (fault.env_id, fault.index, fault.step, fault.key) == (
        "Bad-v0",
        1,
        told_step,
        KEYS[how],
    )
    assert f"Bad-v0: environment 1 failed at step {told_step}: {KEYS[how]}" in str(fault)
    assert buffer.steps_written == max(0, at - 1)
    assert all(gone(pid, 5.0) for pid in pids)


def _breaks_at_once(index: int) -> Misbehaving:
    env = Misbehaving("raise in reset" if index == 1 else "none", 1)
    env.steps = index  # environment 1 counts its first reset as a later one
    return env


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("how", list(KEYS))
def test_a_broken_environment_is_restarted(how: str, mode: Any) -> None:
    make, made = broken_at(how, 3)
    told: list[EnvironmentFault] = []
    envs = VectorEnvironment(
        "Bad-v0",
        make,
        2,
        mode=mode,
        on_env_error="restart",
        step_timeout_s=STEP_TIMEOUT_S,
        on_restart=told.append,
    )
    buffer = ReplayBuffer(500, envs.spec.replay_shapes, 2, num_envs=2)
    collector = Collector(envs, buffer, seed=0)
    made["before"] = True
    first = workers(envs)
    for _ in range(8):
        collector.collect_random()
    assert [(fault.index, fault.step, fault.key) for fault in told] == [(1, 3, KEYS[how])]
    rows = buffer.rows(0, 8)
    assert np.isfinite(rows["obs/joints"]).all()
    # Row 3 of environment 1 begins a new episode, so that no sequence leads across the fault.
    assert np.flatnonzero(rows["is_first"][:, 1]).tolist() == [0, 3]
    assert np.flatnonzero(rows["is_first"][:, 0]).tolist() == ([0, 3] if mode == "sync" else [0])
    assert rows["reward"][:, 1].tolist() == [0, 1, 1, 0, 1, 1, 1, 1]
    last = workers(envs)
    envs.close()
    assert all(gone(pid, 5.0) for pid in {*first, *last})


def test_restarts_run_out() -> None:
    told: list[EnvironmentFault] = []
    envs = VectorEnvironment(
        "Bad-v0",
        lambda index: Misbehaving("infinite reward", 2),
        1,
        on_env_error="restart",
        on_restart=told.append,
    )
    envs.reset(0)
    actions = np.zeros((1, 2), np.float32)
    for _ in range(7):
        envs.step(actions)
    with pytest.raises(EnvironmentFault, match="failed at step 8: reward is not finite: inf") as e:
        envs.step(actions)
    assert [fault.step for fault in told] == [2, 4, 6]
    assert "restarted 3 times already" in (e.value.hint or "")
    with pytest.raises(EnvironmentFault, match="closed"):
        envs.step(actions)


def test_a_hang_with_its_own_children_leaves_no_orphan(tmp_path: Path) -> None:
    note = tmp_path / "child"

    class Spawning(Misbehaving):
        def step(self, action: np.ndarray) -> Any:
            if self.steps == 1:
                child = subprocess.Popen(["sleep", "600"])
                note.write_text(str(child.pid))
            return super().step(action)

    envs = VectorEnvironment(
        "Bad-v0", lambda i: Spawning("hang", 3), 1, step_timeout_s=STEP_TIMEOUT_S
    )
    envs.reset(0)
    actions = np.zeros((1, 2), np.float32)
    envs.step(actions)
    envs.step(actions)
    with pytest.raises(EnvironmentFault, match=r"did not return within 2 s"):
        envs.step(actions)
    assert gone(int(note.read_text()), 5.0)


def test_environments_end_with_the_trainer(tmp_path: Path) -> None:
    note = tmp_path / "workers"
    script = f"""
import os, pathlib, signal
from misbehaving import Misbehaving
from worldflux.envs.vector import VectorEnvironment
envs = VectorEnvironment("Bad-v0", lambda i: Misbehaving(), 2, mode="async")
envs.reset(0)
pids = [str(process.pid) for process in envs._processes]
pathlib.Path({str(note)!r}).write_text(" ".join(pids))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parent, check=False)
    assert all(gone(int(pid), 5.0) for pid in note.read_text().split())
