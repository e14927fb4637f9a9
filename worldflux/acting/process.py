"""Acting in its own process while a learner runs: `worldflux train --serve`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NICENESS = 19  # of the learner: acting has a deadline, learning has none
STOP_TIMEOUT_S = 10.0


@contextmanager
def acting_process(run: Path, options: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """`worldflux serve RUN --follow` until the block ends, or this process does.

    This process, and what it starts from now on, gets a lower priority and one core less
    (OMP_NUM_THREADS decides where it is set), so that acting never waits for an update. Called
    before torch is imported: threads that exist stay as they are.
    """
    command = ("serve", str(run), "--follow", "--until-eof", *options)
    process = subprocess.Popen(
        [sys.executable, "-m", "worldflux", *command],
        stdin=subprocess.PIPE,
        stdout=sys.stderr.fileno(),  # a run prints nothing but its folder on stdout
        # An interrupt from the keyboard is the trainer's to handle. A separate session would do,
        # too, but Linux compares priorities within a session only (sched_autogroup).
        process_group=0,
    )
    os.nice(NICENESS)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) - 1)))
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
