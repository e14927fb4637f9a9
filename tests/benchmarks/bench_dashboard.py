"""Training with and without the page and its gameplay frames, side by side: updates per second.

    .venv/bin/python tests/benchmarks/bench_dashboard.py [--pairs 30] [--updates 120] [--browser]

One training run continues in short blocks, so that changes in the machine's speed affect both
alike. In every other block the dashboard serves the run from its own process, somebody
looks (a client that asks for all that the page asks for, or with --browser a headless Chromium that
shows it), and frames of the agent are drawn; in the others these processes are stopped. Exits 1
when the median pair is more than 3 % slower with all of that, 2 when fewer than 10 pairs were done
in `--minutes`. The machine must be idle: what others take of it in one block only is counted as
the page's.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from worldflux.dashboard import start_in_background
from worldflux.data.collector import Collector
from worldflux.data.replay import ReplayBuffer
from worldflux.data.sources import CollectionSchedule, OnlineSource
from worldflux.envs.make import make_environment
from worldflux.envs.vector import VectorEnvironment
from worldflux.factory import create_world_model
from worldflux.project.gameplay import GameplayStream
from worldflux.training.callbacks import Callback, LoggingCallback
from worldflux.training.config import TrainingConfig
from worldflux.training.trainer import Trainer

ENVIRONMENT = "Pendulum-v1"
# The sizes of the project that `worldflux init --yes` writes.
SIZES = {
    "hidden_dim": 64,
    "latent_dim": 64,
    "num_q_networks": 2,
    "horizon": 3,
    "num_samples": 128,
    "num_elites": 32,
    "num_pi_trajs": 24,
    "iterations": 3,
}
WARMUP = 300
ALLOWED_SLOWDOWN = 0.03
LEAST_PAIRS = 10


def main() -> int:
    """Run the blocks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=30, help="at least 2")
    parser.add_argument("--updates", type=int, default=120, help="updates of a block")
    parser.add_argument("--minutes", type=float, default=9.0, help="no pair begins after them")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--browser", action="store_true", help="look with a headless Chromium")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        deadline = time.monotonic() + 60 * options.minutes
        ratios = measure(Path(folder), options.pairs, options.updates, options.browser, deadline)
    median = statistics.median(ratios)
    error = statistics.stdev(ratios) / len(ratios) ** 0.5
    print(f"median of {len(ratios)} pairs: {median:.3f} of the speed without, mean ", end="")
    print(f"{statistics.mean(ratios):.3f} +- {error:.3f}", flush=True)
    if len(ratios) < min(LEAST_PAIRS, options.pairs):
        return 2
    return int(median < 1 - ALLOWED_SLOWDOWN)


class Stopwatch(Callback):
    """From the beginning of `train` to the end of its last update, its checkpoint left out."""

    def on_train_begin(self, trainer: Trainer) -> None:
        """Start."""
        self._began = time.perf_counter()

    def on_step_end(self, trainer: Trainer, metrics: dict[str, float]) -> None:
        """Read off."""
        self.seconds = time.perf_counter() - self._began


def measure(folder: Path, pairs: int, updates: int, browser: bool, deadline: float) -> list[float]:
    """Speed with the page over speed without it, for each pair of blocks, at least two."""
    envs = VectorEnvironment(
        ENVIRONMENT, lambda index: make_environment(ENVIRONMENT, "rgb_array"), 1
    )
    model = create_world_model("tdmpc2:ci", obs_shape=(3,), action_dim=1, **SIZES)
    config = TrainingConfig(
        total_steps=1_000_000, batch_size=128, log_interval=10, output_dir=str(folder), device="cpu"
    )
    trainer = Trainer(model, config, [LoggingCallback(folder, log_to_console=False)])
    buffer = ReplayBuffer(100_000, (3,), 1, num_envs=1)
    source = OnlineSource(Collector(envs, buffer, 0), CollectionSchedule(WARMUP, 0, 0.75))
    stream = GameplayStream(folder, envs, fps=15)
    watch = Stopwatch()
    trainer.add_callback(stream)
    trainer.train(source, 20)  # the first frame loads the renderer
    ratios = []
    with page(folder, browser) as processes:
        computed_s, looked_s = cpu_s(processes), 0.0
        for pair in range(pairs):
            if pair >= 2 and time.monotonic() > deadline:
                break
            speeds: dict[bool, float] = {}
            for looked_at in (False, True) if pair % 2 else (True, False):
                for process in processes:
                    process.send_signal(signal.SIGCONT if looked_at else signal.SIGSTOP)
                trainer.callbacks = [*trainer.callbacks[:1], *[stream] * looked_at, watch]
                trainer.train(source, updates)
                speeds[looked_at] = updates / watch.seconds
                looked_s += watch.seconds * looked_at
            ratios.append(speeds[True] / speeds[False])
            print(
                f"pair {pair}: {speeds[False]:6.2f} updates/s without, {speeds[True]:6.2f} with "
                f"the page, ratio {ratios[-1]:.3f}",
                flush=True,
            )
        share = (cpu_s(processes) - computed_s) / looked_s
        print(f"the page's server and its viewer took {share:.1%} of one core", flush=True)
        for process in processes:
            process.send_signal(signal.SIGCONT)
    frames = sorted(path.name for path in (folder / "gameplay").glob("*.jpg"))
    drawn = int(frames[-1].split("-")[0]) + 1
    print(f"{drawn} frames drawn in {len(ratios)} blocks", flush=True)
    envs.close()
    return ratios


def cpu_s(processes: Sequence[subprocess.Popen[bytes]]) -> float:
    """Seconds that these processes have computed."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def page(folder: Path, browser: bool) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The page in its own process, and somebody who looks at it."""
    with start_in_background(folder, port=19_765) as dashboard:
        viewer_script = str(Path(__file__).with_name("page_viewer.py"))
        command = [sys.executable, viewer_script, dashboard.url]
        if browser:
            chromium = shutil.which("chromium") or "chromium"
            options = ["--headless=new", "--no-sandbox", "--disable-gpu"]
            command = [chromium, *options, f"--user-data-dir={folder / 'profile'}", dashboard.url]
        viewer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            time.sleep(10.0 if browser else 5.0)  # start-up is not what is measured
            assert viewer.poll() is None, "the viewer is gone"
            yield [dashboard.process, viewer]
        finally:
            viewer.terminate()
            viewer.wait()


if __name__ == "__main__":
    sys.exit(main())
