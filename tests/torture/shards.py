"""Any number of processes, killed at any moment: a run over shards ends as if nothing had happened.

    shards.py                                      40 schedules a family, four shards
    shards.py --family tdmpc2 --trials 5 --jobs 2

A schedule starts a run in 1, 2 or 4 processes, kills one or all of them at a random moment, and
continues it in another number of processes, up to three times. The weights, logs and replay files
of its end must be those of one process that nobody disturbed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from projects import (
    FAMILIES,
    STEPS,
    _timeless,
    forked,
    in_parallel,
    name_of,
    spend_no_time_on_what_cannot_be_lost,
    working_seconds,
    write_project,
)

from worldflux.project.run import train_project
from worldflux.run_log import read_rows
from worldflux.training.checkpoints import CheckpointStore

TIMEOUT_S = 60  # distributed.timeout_s
SECTION = f"\n[distributed]\nshards = {{}}\ntimeout_s = {TIMEOUT_S}\n"


def write_sharded(root: Path, family: str, shards: int) -> Path:
    """The project of `projects.write_project` with 2 rows a shard."""
    write_project(root, family)
    file = root / "worldflux.toml"
    text = file.read_text().replace("batch_size = 4", f"batch_size = {2 * shards}")
    text = text.replace("buffer_capacity = 400", f"buffer_capacity = {200 * shards}")
    file.write_text(text + SECTION.format(shards))
    return root


def started(root: Path, world: int, resume: bool | str) -> list[int]:
    """Start a run in so many forked processes; their pids."""
    meeting = Path(tempfile.mkdtemp(dir=root)) / "rendezvous"
    pids = []
    for rank in range(world):

        def work(rank: int = rank) -> int:
            names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world}
            os.environ.update({name: str(value) for name, value in names.items()})
            os.environ["GLOO_SOCKET_IFNAME"] = "lo"
            os.environ["WORLDFLUX_RENDEZVOUS"] = meeting.as_uri()
            return train_project(root, resume=resume).exit_code  # type: ignore[arg-type]

        pids.append(forked(work, root / f"log-{rank}.txt"))
    return pids


def codes_of(pids: list[int]) -> list[int]:
    """Wait for processes to end; their exit codes, or minus the signal."""
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def fingerprint(root: Path) -> dict[str, Any]:
    """All that must be equal: weights, optimisers, logs without times, and every shard's state,
    which names its replay files by their hashes."""
    outputs = root / "outputs"
    last = outputs / "checkpoints" / name_of(STEPS)
    state = json.loads((last / "state.json").read_text())
    tensors = ("model.safetensors", "optimizers.safetensors", "state.safetensors")
    return {
        **{name: hashlib.sha256((last / name).read_bytes()).hexdigest() for name in tensors},
        "metrics": [_timeless(row) for row in read_rows(outputs / "metrics.jsonl")],
        "evaluations": [_timeless(row) for row in read_rows(outputs / "eval.jsonl")],
        "shards": state["data"]["shards"],
        "counters": [state["step"], state["env_steps"], state["best"]],
    }


class Reference:
    """The undisturbed run in one process, and how long it works."""

    def __init__(self, folder: Path, family: str, shards: int) -> None:
        self.family, self.shards = family, shards
        self.root = write_sharded(folder / f"{family}-reference", family, shards)
        (pid,) = started(self.root, 1, False)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.working_s = working_seconds(pid)
        assert codes_of([pid]) == [0], (self.root / "log-0.txt").read_text()
        self.fingerprint = fingerprint(self.root)


def schedule(reference: Reference, root: Path, seed: int, worlds: tuple[int, ...]) -> dict:
    """One run with kills; whether its end is the reference's, and what it went through."""
    rng = random.Random(seed)
    write_sharded(root, reference.family, reference.shards)
    went, left_over = [], 0
    for _ in range(rng.randint(1, 3)):
        world = rng.choice(worlds)
        pids = started(root, world, "auto")
        wait_for(pids[0], rng.uniform(0.0, reference.working_s / world**0.5))
        victims = pids if rng.random() < 0.5 else [rng.choice(pids)]
        for pid in victims:
            os.kill(pid, signal.SIGKILL)
        began = time.monotonic()
        codes = codes_of(pids)
        left_over += time.monotonic() - began > TIMEOUT_S + 10
        went.append([world, len(victims), codes])
        _, problems = CheckpointStore(root / "outputs" / "checkpoints").newest_valid()
        assert not problems, problems
    world = rng.choice(worlds)
    codes = codes_of(started(root, world, "auto"))
    went.append([world, 0, codes])
    same = not any(codes) and fingerprint(root) == reference.fingerprint
    logs = [] if same else [path.read_text()[-400:] for path in root.glob("log-*.txt")]
    return {"same": same, "slow": left_over, "went": went, "logs": logs}


def wait_for(pid: int, seconds: float) -> None:
    """Wait until a child has worked for so long, or has ended."""
    while working_seconds(pid) < seconds:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
            return
        time.sleep(0.005)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--family", action="append", choices=FAMILIES)
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    spend_no_time_on_what_cannot_be_lost()
    worlds = tuple(n for n in (1, 2, 4) if given.shards % n == 0)
    failed = False
    for family in given.family or FAMILIES:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            reference = Reference(folder, family, given.shards)
            done = in_parallel(
                lambda n, r=reference, f=folder: schedule(
                    r, f / f"trial-{n}", given.seed + n, worlds
                ),
                given.trials,
                given.jobs,
                folder,
                family,
            )
        same = sum(trial["same"] for trial in done)
        kills = sum(entry[1] for trial in done for entry in trial["went"])
        print(f"{family}: {same} of {len(done)} ended the same after {kills} SIGKILLs", flush=True)
        for number, trial in enumerate(done):
            if not trial["same"] or trial["slow"]:
                print(f"  trial {number}: {trial}")
        failed |= same < len(done)
    sys.exit(failed)


if __name__ == "__main__":
    main()
