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
from projects import FAMILIES, fingerprint, finished, forked, run, write_project

from worldflux.project.run_folder import LOCK

GONE_WITHIN_S = 10.0


def interrupted(reference: Reference, root: Path, number: int, seed: int) -> dict[str, Any]:
    """Signal a trainer's process group at a random moment; how it went, and how it goes on."""
    write_project(root, reference.family)
    log = root / "log.txt"
    pid = forked(lambda: _in_own_group(root), log)
    manifest = root / "outputs" / "run_manifest.json"
    _wait(lambda: manifest.is_file(), 60)
    time.sleep(random.Random(seed).uniform(0.0, 0.7 * reference.seconds))
    began = time.monotonic()
    os.killpg(pid, number)
    _, status = os.waitpid(pid, 0)
    seconds = time.monotonic() - began
    code = os.waitstatus_to_exitcode(status)
    ended = json.loads(manifest.read_text())["status"]
    told = log.read_text()
    too_late = code == 0 and ended == "completed"  # the run was over before the signal
    stopped = code == 128 + number and ended == "interrupted"
    again = 0 if too_late else finished(lambda: run(root, resume=True), root / "again.txt")
    return {
        "stopped": stopped or too_late,
        "too late": too_late,
        "in time": seconds <= GONE_WITHIN_S,
        "quiet": "Traceback" not in told,
        "told": too_late or "worldflux train --resume" in told,
        "same": again == 0 and fingerprint(root) == reference.fingerprint,
    }


def second_signal(reference: Reference, root: Path, seed: int) -> bool:
    """Two signals in a row: gone, and a valid checkpoint stands if one stood."""
    write_project(root, reference.family)
    pid = forked(lambda: _in_own_group(root), root / "log.txt")
    _wait(lambda: any((root / "outputs" / "checkpoints").glob("step-*")), 60)
    time.sleep(random.Random(seed).uniform(0.0, 0.3))
    for _ in range(2):
        try:
            os.killpg(pid, signal.SIGINT)
        except ProcessLookupError:
            break
    os.waitpid(pid, 0)
    resumed = finished(lambda: run(root, resume=True), root / "again.txt")
    return resumed == 0 and fingerprint(root) == reference.fingerprint


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
    told = (root / f"{pids[loser]}.txt").read_text()
    # It met the lock, or it came so late that it met the winner's manifest.
    named = f"process {winner}" in told or "already holds a run" in told
    lost = os.waitstatus_to_exitcode(status) == 2 and named
    os.kill(winner, signal.SIGSTOP)  # so that what a third one touches would be seen
    os.waitid(os.P_PID, winner, os.WSTOPPED)
    before = _tree(root / "outputs")
    third = finished(lambda: run(root, resume=True), root / "c.txt")
    untouched = _tree(root / "outputs") == before and third == 2
    os.kill(winner, signal.SIGKILL)
    os.waitpid(winner, 0)
    toml = root / "worldflux.toml"
    toml.write_text(toml.read_text().replace("total_steps = 1000000", "total_steps = 1"))
    free = finished(lambda: run(root, resume=True), root / "d.txt")
    return {
        "one winner": lost and holder["pid"] == winner,
        "loser touches nothing": untouched,
        "free after a kill": free == 0,
    }


def _tree(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file():
            stat = path.stat()
            found[str(path)] = (stat.st_mtime_ns, stat.st_size, path.read_bytes())
    return found
