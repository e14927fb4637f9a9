"""SIGINT and SIGTERM to a trainer's process group, and trainers that race for one folder."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from kills import Reference
from projects import (
    FAMILIES,
    bytes_below,
    fingerprint,
    finished,
    forked,
    run,
    wait_for_work,
    working_seconds,
    write_project,
)

from worldflux.layout import LOCK
from worldflux.training.checkpoints import CheckpointStore

GONE_WITHIN_S = 10.0
REFUSED_WITHIN_S = 2.0


def interrupted(reference: Reference, root: Path, number: int, seed: int) -> dict[str, Any]:
    """Signal a trainer's process group at a random moment; how it ended, and how it continues."""
    write_project(root, reference.family)
    log = root / "log.txt"
    pid = forked(lambda: _in_own_group(root), log)
    manifest = root / "outputs" / "run_manifest.json"
    _wait(manifest.is_file, 300)
    begun = working_seconds(pid)
    wait_for_work(pid, random.Random(seed).uniform(begun, 0.9 * reference.working_s))
    os.killpg(pid, number)
    code, seconds = _ended(pid)
    ended = json.loads(manifest.read_text())["status"]
    output = log.read_text()
    too_late = code == 0 and ended == "completed"  # the run was over before the signal
    stopped = code == 128 + number and ended == "interrupted"
    again = 0 if too_late else finished(lambda: run(root, resume=True), root / "again.txt")
    return {
        "stopped": stopped or too_late,
        "too late": too_late,
        "in time": seconds <= GONE_WITHIN_S,
        "quiet": "Traceback" not in output,
        "reported": too_late or "worldflux train --resume" in output,
        "same": again == 0 and fingerprint(root) == reference.fingerprint,
        "seconds": seconds,
    }


def _ended(pid: int) -> tuple[int, float]:
    """Exit code of a child, and the seconds until it was gone, less its wait for a processor."""
    began, waited, last = time.monotonic(), _waited_s(pid), 0.0
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status), time.monotonic() - began - (last - waited)
        last = max(_waited_s(pid), waited)
        time.sleep(0.002)


def _waited_s(pid: int) -> float:
    """How long a process wanted a processor that others had; 0 where the kernel does not tell."""
    statistics = Path(f"/proc/{pid}/schedstat")
    return int(statistics.read_text().split()[1]) / 1e9 if statistics.exists() else 0.0


def second_signal(reference: Reference, root: Path, seed: int) -> dict[str, bool]:
    """A second signal while the first one's save is under way: gone at once, nothing lost."""
    rng = random.Random(seed)
    write_project(root, reference.family)
    pid = forked(lambda: _in_own_group(root), root / "log.txt")
    _wait(lambda: any((root / "outputs" / "checkpoints").glob("step-*")), 300)
    for share in (0.5, 0.15):
        further = rng.uniform(0.0, share * reference.working_s)
        wait_for_work(pid, working_seconds(pid) + further)
        os.killpg(pid, signal.SIGINT)
    code, _ = _ended(pid)
    resumed = finished(lambda: run(root, resume=True), root / "again.txt")
    return {
        "broken off": code == -signal.SIGINT,
        "same": resumed == 0 and fingerprint(root) == reference.fingerprint,
    }


def _in_own_group(root: Path) -> int:
    os.setsid()
    return run(root, say=lambda line: print(line, flush=True))


def _wait(ready: Any, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.01)


def race(root: Path, seed: int) -> dict[str, bool]:
    """Two trainers of one folder at the same time, then a third after the winner was killed."""
    write_project(root, FAMILIES[0], steps=1_000_000)
    pids = {}
    for name in ("a", "b"):
        pids[forked(lambda: run(root), root / f"{name}.txt")] = name
        time.sleep(random.Random(seed).uniform(0.0, 0.01))
    loser, status = os.waitpid(-1, 0)
    if loser not in pids:
        raise AssertionError(f"process {loser} is none of ours")
    (winner,) = pids.keys() - {loser}
    holder = json.loads((root / "outputs" / LOCK).read_text())
    output = (root / f"{pids[loser]}.txt").read_text()
    # It met the lock, or it came so late that it met the winner's manifest.
    named = f"process {winner}" in output or "already holds a run" in output
    lost = os.waitstatus_to_exitcode(status) == 2 and named
    os.kill(winner, signal.SIGSTOP)  # so that what a third one touches would be seen
    os.waitid(os.P_PID, winner, os.WSTOPPED)
    before = bytes_below(root / "outputs")
    third, seconds = _ended(forked(lambda: run(root, resume=True), root / "c.txt"))
    untouched = bytes_below(root / "outputs") == before and third == 2
    os.kill(winner, signal.SIGKILL)
    os.waitpid(winner, 0)
    steps = CheckpointStore(root / "outputs" / "checkpoints").steps()
    total = f"training.total_steps={max(steps, default=0) + 1}"
    free = finished(lambda: run(root, resume="auto", overrides=[total]), root / "d.txt")
    return {
        "one winner": lost and holder["pid"] == winner,
        "loser touches nothing": untouched,
        "loser gone within 2 s": seconds < REFUSED_WITHIN_S,
        "free after a kill": free == 0,
    }
