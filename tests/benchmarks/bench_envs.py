"""What stepping environments costs: eight async ones against one, and the price of the process.

    python tests/benchmarks/bench_envs.py

The environment works about 1 ms of CPU a step. Both cores must be idle.
"""

from __future__ import annotations

import os
import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from worldflux.envs.vector import VectorEnvironment

STEPS = 1500
WORK_S = 1e-3


class Working(gymnasium.Env):
    """Keeps a core busy for `WORK_S` of CPU time a step."""

    def __init__(self, work_s: float = WORK_S) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (24,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (6,), np.float32)
        self.work_s = work_s

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(24, np.float32), {}

    def step(self, action: Any) -> Any:
        end = time.thread_time() + self.work_s
        while time.thread_time() < end:
            pass
        return np.zeros(24, np.float32), 0.0, False, False, {}


def steps_per_second(mode: Any, count: int, work_s: float = WORK_S, steps: int = STEPS) -> float:
    envs = VectorEnvironment("Working", lambda i: Working(work_s), count, mode=mode)
    envs.reset(0)
    actions = np.zeros((count, 6), np.float32)
    for _ in range(20):
        envs.step(actions)
    began = time.perf_counter()
    for _ in range(steps // count):
        envs.step(actions)
    rate = steps // count * count / (time.perf_counter() - began)
    envs.close()
    return rate


def main() -> None:
    print(f"cores: {len(os.sched_getaffinity(0))}")
    one = steps_per_second("sync", 1)
    print(f"one environment of 1 ms      {one:8.0f} steps/s")
    for mode, count in (("sync", 8), ("async", 2), ("async", 8)):
        rate = steps_per_second(mode, count)
        print(f"{count} {mode:5} environments of 1 ms {rate:8.0f} steps/s  {rate / one:5.2f} x one")
    for count in (1, 8):
        rate = steps_per_second("sync", count, work_s=0.0, steps=4000)
        cost = f"{1e6 * count / rate:6.0f} us a vector step"
        print(f"{count} sync environments of 0 ms {rate:8.0f} steps/s  {cost}")


if __name__ == "__main__":
    main()
