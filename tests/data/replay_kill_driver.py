"""Forks writers of one replay and kills them after a checkpoint; prints what came back each time.

A process of its own, because it forks after importing torch once.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from test_replay_storage import SealedFiles, Stream


def writer(folder: Path, checkpoint: Path, saves: int) -> int:
    """Fork a writer that leaves `checkpoint` and then steps and saves without end; its pid."""
    pid = os.fork()
    if pid == 0:
        stream = Stream()
        sealed = SealedFiles(stream.buffer)
        for _ in range(saves):
            stream.advance(23)
            state = sealed.save(folder)
        partial = checkpoint.with_suffix(".tmp")
        partial.write_text(json.dumps(state))
        partial.rename(checkpoint)
        while True:
            stream.advance(5)
            sealed.save(folder)
    return pid


def trial(root: Path, number: int, rng: random.Random) -> dict[str, bool]:
    """One kill, and what the resumed replay gives beside one that was never stopped."""
    folder, checkpoint = root / f"replay-{number}", root / f"state-{number}.json"
    saves = rng.randint(1, 5)
    pid = writer(folder, checkpoint, saves)
    while not checkpoint.exists():
        time.sleep(0.002)
    time.sleep(rng.uniform(0.0, 0.1))
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    uninterrupted, resumed = Stream(), Stream(seed=5)
    uninterrupted.advance(23 * saves)
    SealedFiles(resumed.buffer).restore(json.loads(checkpoint.read_text()), folder)
    same = (len(resumed.buffer), resumed.buffer.steps_written) == (
        len(uninterrupted.buffer),
        uninterrupted.buffer.steps_written,
    )
    equal = same and resumed.advance(10) == uninterrupted.advance(10)
    return {"killed": os.WIFSIGNALED(status), "equal": equal}


def main() -> None:
    rng = random.Random(0)
    trials = [trial(Path(sys.argv[1]), number, rng) for number in range(int(sys.argv[2]))]
    print(json.dumps(trials))


if __name__ == "__main__":
    main()
