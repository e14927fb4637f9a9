"""A control loop at 20 Hz around a plant that is no Gymnasium environment:
`python control_loop.py outputs`.

An answer that comes too late, or a sensor that fails, gives the safe action; the loop continues.
"""

import math
import sys
import time

import numpy as np

import worldflux
from worldflux.errors import EnvironmentFault

PERIOD_S = 0.05
SAFE = np.zeros(1, np.float32)  # no torque


class Plant:
    """A pendulum with an encoder that fails now and then."""

    def __init__(self) -> None:
        self.angle, self.speed, self.reads = math.pi, 0.0, 0

    def read(self) -> np.ndarray:
        self.reads += 1
        angle = math.nan if self.reads % 10 == 0 else self.angle
        return np.array([math.cos(angle), math.sin(angle), self.speed], np.float32)

    def write(self, torque: float) -> None:
        self.speed += (15 * math.sin(self.angle) + 3 * torque) * PERIOD_S
        self.speed = max(-8.0, min(8.0, self.speed))
        self.angle += self.speed * PERIOD_S


def main(run: str, steps: int) -> None:
    agent, plant = worldflux.load_agent(run), Plant()
    agent.act(plant.read())  # the first answer loads the kernels
    agent.reset()
    late = failed = 0
    deadline = time.monotonic() + PERIOD_S
    for _ in range(steps):
        try:
            action = agent.act(plant.read())
        except EnvironmentFault:  # the agent remembers what it saw before
            action, failed = SAFE, failed + 1
        if time.monotonic() > deadline:
            action, late = SAFE, late + 1
        plant.write(float(action[0]))
        time.sleep(max(0.0, deadline - time.monotonic()))
        deadline = max(deadline, time.monotonic()) + PERIOD_S
    print(f"{steps} steps, {late} late, {failed} without a sensor")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200)
