"""Cost of the replay at a million transitions: microseconds a row added and a batch sampled."""

from __future__ import annotations

import time

import numpy as np

from worldflux.data.replay import ReplayBuffer

ROWS = 1_000_000
BATCHES = 300


def main() -> None:
    buffer = ReplayBuffer(ROWS, (24,), 6)
    obs, action, zero = np.zeros((1, 24), np.float32), np.zeros((1, 6), np.float32), np.zeros(1)
    flag = np.zeros(1, bool)
    began = time.perf_counter()
    for step in range(ROWS):
        first = np.array([step % 500 == 0])
        buffer.add(obs, action, zero, first, flag, flag)
    added = (time.perf_counter() - began) / ROWS
    began = time.perf_counter()
    for _ in range(BATCHES):
        buffer.sample(256, 4)
    sampled = (time.perf_counter() - began) / BATCHES
    print(
        f"replay of {ROWS:,} rows (observation 24, action 6): {buffer.size_bytes / 2**20:.0f} MiB"
    )
    print(f"  add     {added * 1e6:8.1f} us a row")
    print(f"  sample  {sampled * 1e6:8.1f} us a batch of 256 x 4")


if __name__ == "__main__":
    main()
