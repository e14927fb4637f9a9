"""An agent as a node of a robot, in the style of ROS without ROS: `python node.py outputs`.

Messages arrive in a thread of their own; the node keeps the newest one, and a timer publishes what
the agent does about it.
"""

import queue
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable

import gymnasium
import numpy as np

import worldflux


class Bus:
    """Topics, and who listens to them; messages are delivered by one thread."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Callable]] = defaultdict(list)
        self._messages: queue.Queue = queue.Queue()
        threading.Thread(target=self._deliver, daemon=True).start()

    def subscribe(self, topic: str, callback: Callable) -> None:
        self._listeners[topic].append(callback)

    def publish(self, topic: str, message: object) -> None:
        self._messages.put((topic, message))

    def _deliver(self) -> None:
        while True:
            topic, message = self._messages.get()
            for callback in self._listeners[topic]:
                callback(message)


class AgentNode:
    """Subscribes to `/observation` and `/reset`, publishes `/action` at a rate."""

    def __init__(self, bus: Bus, run: str, hz: float) -> None:
        self.agent, self._bus, self._period = worldflux.load_agent(run), bus, 1.0 / hz
        self._newest: np.ndarray | None = None
        self._stopped = threading.Event()
        bus.subscribe("/observation", self.on_observation)
        bus.subscribe("/reset", lambda _: self.agent.reset())
        self._timer = threading.Thread(target=self.spin, daemon=True)
        self._timer.start()

    def on_observation(self, message: np.ndarray) -> None:
        self._newest = message

    def spin(self) -> None:
        while not self._stopped.wait(self._period):
            observation, self._newest = self._newest, None
            if observation is not None:
                self._bus.publish("/action", self.agent.act(observation))

    def stop(self) -> None:
        self._stopped.set()
        self._timer.join()


def main(run: str, steps: int) -> None:
    """A simulated robot that answers each action with what its sensors then read."""
    bus, env = Bus(), gymnasium.make("Pendulum-v1")
    taken: list[float] = []
    done = threading.Event()

    def on_action(action: np.ndarray) -> None:
        taken.append(float(action[0]))
        observation, *_ = env.step(action)
        if len(taken) == steps:
            done.set()
        else:
            bus.publish("/observation", observation)

    bus.subscribe("/action", on_action)
    node = AgentNode(bus, run, hz=100)
    observation, _ = env.reset(seed=0)
    began = time.monotonic()
    bus.publish("/reset", None)
    bus.publish("/observation", observation)
    done.wait()
    node.stop()
    print(f"{len(taken)} actions, {len(taken) / (time.monotonic() - began):.0f} a second")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200)
