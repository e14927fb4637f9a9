"""Updates a second: two processes of one thread against one with the same two shards, and against a
run without shards; and processor seconds of an update, which a busy machine changes less.

    OMP_NUM_THREADS=1 bench_shards.py [--seconds 8] [--repeat 7] [--model dreamerv3:official_1m]

On an idle machine with two cores, one for each process. Noise instead of environments: only updates
are timed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from worldflux import create_world_model
from worldflux.core.learning import LearningOverrides, set_seed
from worldflux.core.world_model import WorldModel
from worldflux.data.replay import ReplayBuffer
from worldflux.envs.spec import EnvironmentSpec
from worldflux.project.processes import Processes
from worldflux.training.config import TrainingConfig
from worldflux.training.data import fill_with_noise
from worldflux.training.device import keep_freed_memory
from worldflux.training.sharded import updater_of
from worldflux.training.shards import ShardGroup

SHARDS = 2
# Model -> observation and action sizes: walker-walk from state, and images of 64 x 64.
MODELS = {
    "dreamerv3:official_1m": ((3, 64, 64), 6),
    "tdmpc2:official_1m": ((24,), 6),
}


def timed(name: str, rank: int, shards: int, seconds: float) -> tuple[float, float]:
    """Updates a second, of a whole run's batch, and processor seconds of each in this process."""
    torch.set_num_threads(1)
    keep_freed_memory()  # as `worldflux train` does
    obs, actions = MODELS[name]
    set_seed(0)
    model: WorldModel = create_world_model(name, obs_shape=obs, action_dim=actions)
    config = TrainingConfig()
    resolved = config.resolve(model.config)
    group = ShardGroup(shards, list(range(shards)), torch.device("cpu")) if shards else None
    local = resolved.batch_size * (len(group.local) if group else 1) // max(1, shards)
    extras = {name: shape for name, (shape, _) in model.replay_columns().items()}
    noise = ReplayBuffer(4096, obs, actions, extra_columns=extras, seed=rank)
    fill_with_noise(noise, EnvironmentSpec("noise", obs, actions, "continuous", None), 2048, rank)
    within = not model.config.training_recipe().crosses_episodes
    updater = updater_of(model, model.phases(LearningOverrides()), config, group)

    def update() -> None:
        batch = noise.sample(local, resolved.sequence_length, within_episode=within)
        _, scratch = updater.update(batch, 1.0)
        model.after_update(scratch)

    update()
    count, began, worked = 0, time.perf_counter(), time.process_time()
    enough = False
    while not enough:
        update()
        count += 1
        passed = time.perf_counter() - began
        # As often as a Trainer, all processes agree on something.
        enough = passed > seconds if group is None else group.exchange(passed > seconds)[0]
    return count / passed, (time.process_time() - worked) / count


def measured(name: str, world: int, shards: int, seconds: float) -> tuple[float, float]:
    """What `timed` returns, of the first of so many forked processes."""
    with tempfile.TemporaryDirectory() as folder:
        result, pids = Path(folder) / "result", []
        for rank in range(world):
            pid = os.fork()
            if pid:
                pids.append(pid)
                continue
            if hasattr(os, "sched_setaffinity"):  # else the kernel moves them: 4 % of an update
                cores = sorted(os.sched_getaffinity(0))
                os.sched_setaffinity(0, {cores[rank % len(cores)]})
            os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), GLOO_SOCKET_IFNAME="lo")
            os.environ["WORLDFLUX_RENDEZVOUS"] = (Path(folder) / "meeting").as_uri()
            processes = Processes()
            processes.meet(600)
            processes.join(600, cuda=False)
            found = timed(name, rank, shards, seconds)
            if rank == 0:
                result.write_text(" ".join(map(str, found)))
            sys.stdout.flush()
            os._exit(0)
        assert all(os.waitpid(pid, 0)[1] == 0 for pid in pids)
        rate, worked = map(float, result.read_text().split())
        return rate, worked


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--model", action="append", choices=list(MODELS))
    given = parser.parse_args()
    print("model, then medians of the repetitions; two to one is the median of their ratios")
    for name in given.model or MODELS:
        # In turns, so that whatever else the machine does is in all of them.
        rows = [
            [
                measured(name, world, shards, given.seconds)
                for world, shards in ((1, 0), (1, 2), (2, 2))
            ]
            for _ in range(given.repeat)
        ]
        for number, what in enumerate(("updates/s", "processor s")):
            plain, one, two = (
                [cell[number] for cell in column] for column in zip(*rows, strict=True)
            )
            middle = [f"{median(values):.4f}" for values in (plain, one, two)]
            print(f"{name}, {what}: without shards {middle[0]}, one {middle[1]}, two {middle[2]}")
            for other, values in (("one", one), ("a run without shards", plain)):
                ratios = sorted(b / a for a, b in zip(values, two, strict=True))
                spread = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
                print(f"  two to {other} {median(ratios):.3f} ({spread})")


if __name__ == "__main__":
    main()
