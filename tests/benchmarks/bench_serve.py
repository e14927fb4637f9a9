"""A 50 Hz environment against `worldflux train --serve`, on cores that a learner keeps busy.

    python tests/benchmarks/bench_serve.py --minutes 10

Every 20 ms an observation is sent; its action is to arrive before the next tick. Fails when p99.9
of the latency, measured by the client, is not below `--bound-ms`, when a deadline was missed
(unless `--lenient`), or when the log does not repeat exactly.
"""

from __future__ import annotations

import argparse
import gc
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gymnasium
import numpy as np

from worldflux.acting.process import NICENESS

WORLDFLUX = (sys.executable, "-m", "worldflux")
RAW = {"content-type": "application/octet-stream"}
PROJECT = """
project_name = "clocked"
environment = "Pendulum-v1"
model = "{model}"

[training]
total_steps = 10000000
device = "cpu"

[online_collection]
warmup_transitions = 300
pretrain = false

[evaluation]
episodes = 0

[gameplay]
enabled = false
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@contextmanager
def learner(root: Path, model: str, hz: float, loaded: bool) -> Iterator[tuple[Path, Path]]:
    """A run that learns and serves; its socket and its log. Ended as Ctrl+C ends it.

    The learner leaves one core to acting; `loaded` busies that too, with the learner's priority.
    """
    (root / "worldflux.toml").write_text(PROJECT.format(model=model))
    at, log = root / "agent.sock", root / "log"
    serve = f"--serve=--hz {hz:g} --socket {at} --log {log}"
    process = subprocess.Popen([*WORLDFLUX, "train", "--yes", serve], cwd=root)
    busy = "while True: pass" if loaded else "pass"
    load = subprocess.Popen(["nice", "-n", str(NICENESS), sys.executable, "-c", busy])
    try:
        until = time.monotonic() + 180
        while socket.socket(socket.AF_UNIX).connect_ex(str(at)):
            assert process.poll() is None, "the learner has ended"
            assert time.monotonic() < until, "nothing is served"
            time.sleep(0.1)
        yield at, log
        assert process.poll() is None, "the learner has ended"
    finally:
        load.kill()
        process.send_signal(signal.SIGINT)
        process.wait(60)


def play(at: Path, hz: float, seconds: float) -> tuple[np.ndarray, list[dict[str, object]]]:
    """Latencies in ms of a clocked environment's observations, and what each answer says of
    itself."""
    env, connection = gymnasium.make("Pendulum-v1"), UnixConnection(at)
    observation, _ = env.reset(seed=0)
    latencies, facts, session, first = [], [], "", 0
    connection.request("GET", "/")
    connection.getresponse().read()
    gc.disable()
    began = time.monotonic()
    for tick in range(int(seconds * hz)):
        time.sleep(max(0.0, began + tick / hz - time.monotonic()))
        sent = time.monotonic()
        connection.request("POST", f"/act?first={first}{session}", observation.tobytes(), RAW)
        response = connection.getresponse()
        action = np.frombuffer(response.read(), np.float32)
        latencies.append(1000 * (time.monotonic() - sent))
        facts.append(json.loads(response.headers["x-answer"]))
        session = f"&session={facts[-1]['session']}"
        observation, _, terminated, truncated, _ = env.step(action)
        first = int(terminated or truncated)
        if first:
            observation, _ = env.reset()
    return np.array(latencies), facts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--hz", type=float, default=50.0)
    parser.add_argument("--model", default="tdmpc2:laptop")
    parser.add_argument("--bound-ms", type=float, default=20.0)
    lenient = "Missed deadlines are no failure, and nothing else loads the machine."
    parser.add_argument("--lenient", action="store_true", help=lenient)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder:
        root = Path(folder)
        with learner(root, args.model, args.hz, not args.lenient) as (at, log):
            latencies, facts = play(at, args.hz, 60 * args.minutes)
        replay = ("serve", str(root / "outputs"), "--replay", str(log))
        replayed = subprocess.run(
            [*WORLDFLUX, *replay], capture_output=True, text=True, cwd=root, check=False
        )
    late = int((latencies > 1000 / args.hz).sum())
    p50, p99, p999 = np.percentile(latencies, (50, 99, 99.9))
    print(f"{len(latencies):,} answers on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"latency ms: p50 {p50:.1f}, p99 {p99:.1f}, p99.9 {p999:.1f}, max {latencies.max():.1f}")
    server_ms = np.percentile([float(str(each["ms"])) for each in facts], 99.9)
    print(f"of which in the server: p99.9 {server_ms:.1f}")
    print(f"missed deadlines: {late}")
    print(f"iterations: {dict(sorted(Counter(each['iterations'] for each in facts).items()))}")
    print(f"updates acted with: {len({each['update'] for each in facts})}")
    print(f"replay: {replayed.stdout.strip()} {replayed.stderr.strip()}")
    in_time = p999 < args.bound_ms and (args.lenient or not late)
    return int(not in_time or replayed.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
