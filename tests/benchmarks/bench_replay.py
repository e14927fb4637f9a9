"""Cost of the replay at a million transitions, next to torchrl's slice sampler if it is installed.

    python tests/benchmarks/bench_replay.py           add, sample, memory, 10 million adds
    python tests/benchmarks/bench_replay.py --disk     what a checkpoint of a 1 GiB replay costs

torchrl is tied to one torch version: 0.14.1 with tensordict 0.15.3 works with torch 2.13.0, best in
its own environment.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worldflux.data.replay import ReplayBuffer
from worldflux.data.replay_storage import SealedFiles

ROWS = 1_000_000
ADDS = 10_000_000
EPISODE = 500
OBS, ACTION = 24, 6
SIZES = ((256, 4), (16, 65), (16, 50))  # TD-MPC2, DreamerV3, documented default: batch x length
REPEATS = 5


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def median_us(work: Callable[[], object], count: int) -> float:
    """Median over rounds of the mean duration of one call, in microseconds."""
    work()
    rounds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(count):
            work()
        rounds.append((time.perf_counter() - began) / count * 1e6)
    return float(np.median(rounds))


def filled(rows: int) -> tuple[ReplayBuffer, list[float], list[float]]:
    """A full buffer, with microseconds a row and resident MiB for each million rows added."""
    buffer = ReplayBuffer(ROWS, (OBS,), ACTION)
    rng = np.random.default_rng(0)
    obs = rng.standard_normal((64, 1, OBS)).astype(np.float32)
    action = rng.uniform(-1, 1, (64, 1, ACTION)).astype(np.float32)
    reward, no, yes = np.zeros(1, np.float32), np.zeros(1, bool), np.ones(1, bool)
    costs, sizes = [], []
    for million in range(rows // ROWS):
        began = time.perf_counter()
        for step in range(ROWS):
            first = yes if step % EPISODE == 0 else no
            last = yes if step % EPISODE == EPISODE - 1 else no
            buffer.add(obs[step % 64], action[step % 64], reward, first, last, no)
        costs.append((time.perf_counter() - began) / ROWS * 1e6)
        sizes.append(resident_mib())
        print(f"  million {million + 1:2}: {costs[-1]:5.1f} us a row, {sizes[-1]:.0f} MiB resident")
    return buffer, costs, sizes


def torchrl_sampler(batch: int, length: int, cached: bool) -> Callable[[], Any] | None:
    """torchrl's slice sampler over the same rows; None where torchrl is not installed.

    Its cache of episode bounds holds only while nothing is added: right for recorded data. A replay
    that grows between samples, as in training online, pays for the bounds each time.
    """
    try:
        from tensordict import TensorDict
        from torchrl.data import LazyTensorStorage, SliceSampler, TensorDictReplayBuffer
    except ImportError:
        return None
    steps = torch.arange(ROWS)
    rows = TensorDict(
        {
            "obs": torch.randn(ROWS, OBS),
            "action": torch.rand(ROWS, ACTION),
            "reward": torch.zeros(ROWS, 1),
            "is_first": (steps % EPISODE == 0)[:, None],
            "done": (steps % EPISODE == EPISODE - 1)[:, None],
            "terminated": torch.zeros(ROWS, 1, dtype=torch.bool),
            "episode": steps // EPISODE,
        },
        batch_size=[ROWS],
    )
    buffer = TensorDictReplayBuffer(
        storage=LazyTensorStorage(ROWS),
        sampler=SliceSampler(slice_len=length, traj_key="episode", cache_values=cached),
        batch_size=batch * length,
    )
    buffer.extend(rows)
    return lambda: buffer.sample().reshape(batch, length)


def compare_sampling(buffer: ReplayBuffer) -> None:
    """Ours and torchrl's, turn by turn, at each size."""
    for batch, length in SIZES:
        ours = median_us(lambda b=batch, t=length: buffer.sample(b, t), 200)
        line = f"  sample {batch:3} x {length:2}: {ours:8.1f} us a batch"
        for word, cached, count in (("growing", False, 3), ("static", True, 30)):
            other = torchrl_sampler(batch, length, cached)
            if other is not None:
                theirs = median_us(other, count)
                line += f"; torchrl {word} {theirs:9.1f} us ({theirs / ours:.1f} times)"
        print(line)


def checkpoint_cost() -> None:
    """Pause and bytes of a checkpoint of a 1 GiB replay, whole and after further rows."""
    rows = 87_000  # of 64 x 64 colour images: 1 GiB
    buffer = ReplayBuffer(rows, (3, 64, 64), ACTION)
    image = np.random.default_rng(0).integers(0, 256, (1001, 3, 64, 64)).astype(np.uint8)
    ends = np.zeros(1000, bool)
    ends[-1] = True

    def play(episodes: int) -> None:
        for _ in range(episodes):
            buffer.add_episode(image, np.zeros((1000, ACTION)), np.zeros(1000), ends)

    print(f"replay of {buffer.size_bytes / 2**30:.2f} GiB of images")
    play(rows // 1001)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        sealed = SealedFiles(buffer)
        for episodes in (0, 1, 1, 5, 10):
            play(episodes)
            new = buffer.rows_per_env if not episodes else episodes * 1001
            before = _written_bytes()
            began = time.perf_counter()
            sealed.save(Path(name))
            pause_s = time.perf_counter() - began
            written = _written_bytes() - before
            new_bytes = new * buffer.size_bytes // rows
            print(
                f"  new {new_bytes / 2**20:7.1f} MiB: pause {pause_s:6.3f} s, written "
                f"{written / 2**20:7.1f} MiB ({written / new_bytes:.2f} of what is new)"
            )


def _written_bytes() -> int:
    """Bytes that this process sent to the disk."""
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        if line.startswith("write_bytes:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/io has no write_bytes")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--disk", action="store_true")
    parser.add_argument("--adds", type=int, default=ADDS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.disk:
        checkpoint_cost()
        return
    print(f"replay of {ROWS:,} rows (observation {OBS}, action {ACTION}), empty:")
    buffer, costs, sizes = filled(given.adds)
    print(f"  {buffer.size_bytes / 2**20:.0f} MiB of rows; add {np.median(costs):.1f} us a row")
    if len(sizes) > 1:
        print(f"  since it was full: {sizes[-1] - sizes[0]:+.1f} MiB, {costs[-1] / costs[0]:.2f} x")
    compare_sampling(buffer)


if __name__ == "__main__":
    main()
