"""Pendulum from the data of a poor policy, then from collected experience: docs/results.md.

    make learn-offline-to-online      (three seeds, one after another, one thread)

Each seed is trained three ways, with as many updates: offline and then online (half of the updates
each), on the recorded data alone, and on collected experience alone (as many environment steps as
the first one collects, a fifth of them random).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import gymnasium
import numpy as np

from worldflux.project import recorder
from worldflux.project.run import train_project
from worldflux.run_log import read_rows

UPDATES, RECORDED_EPISODES, STEPS, RANDOM_STEPS = 1600, 10, 600, 120
PROJECT = f"""
project_name = "offline-to-online"
environment = "Pendulum-v1"
model = "tdmpc2:ci"
[architecture]
hidden_dim = 64
latent_dim = 64
num_q_networks = 2
horizon = 3
num_samples = 64
num_elites = 16
num_pi_trajs = 16
iterations = 3
gamma = 0.975
tau = 0.03
vmin = -7.0
vmax = 1.0
[training]
total_steps = {UPDATES}
batch_size = 64
learning_rate = 1e-3
eval_interval = {UPDATES // 4}
device = "cpu"
[online_collection]
pretrain = false
[evaluation]
episodes = 20
[gameplay]
enabled = false
"""
RECORDED = ('data.source="npz"', 'data.path="mediocre.npz"')
WAYS = {
    "offline, then online": (
        *RECORDED,
        f"online_collection.after_offline_updates={UPDATES // 2}",
        f"online_collection.collect_steps_per_update={2 * STEPS / UPDATES}",
    ),
    "offline": RECORDED,
    "online": (
        f"online_collection.warmup_transitions={RANDOM_STEPS}",
        f"online_collection.collect_steps_per_update={(STEPS - RANDOM_STEPS) / UPDATES}",
    ),
}


def record(path: Path) -> float:
    """Write episodes of a policy that swings as high as the pivot and knows nothing of the upper
    half, half of its torques random; its mean return."""
    env, rng = gymnasium.make("Pendulum-v1"), np.random.default_rng(0)
    names = ("observations", "actions", "rewards", "terminals", "timeouts", "next_observations")
    columns: dict[str, list[object]] = {name: [] for name in names}
    for episode in range(RECORDED_EPISODES):
        obs, truncated = env.reset(seed=10_000 + episode)[0], False
        while not truncated:
            energy = obs[2] ** 2 / 6 + 5 * obs[0]  # -5 at rest below, 5 at the top
            pumped = 2 * np.sign(obs[2] * (0 - energy))
            action = np.float32([rng.uniform(-2, 2) if rng.random() < 0.5 else pumped])
            following, reward, _, truncated, _ = env.step(action)
            row = (obs, action, reward, False, truncated, following)
            for column, value in zip(columns.values(), row, strict=True):
                column.append(value)
            obs = following
    np.savez(path, **{name: np.array(values) for name, values in columns.items()})
    return float(np.sum(columns["rewards"]) / RECORDED_EPISODES)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    recorder.can_imagine = lambda model: False  # pictures take longer than the training
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "worldflux.toml").write_text(PROJECT)
        mean = record(root / "mediocre.npz")
        print(f"recorded: {RECORDED_EPISODES} episodes, mean return {mean:.0f}\n")
        updates = " | ".join(f"update {UPDATES * part // 4}" for part in (1, 2, 3, 4))
        print(f"| data | seed | env steps | {updates} |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            for number, (way, settings) in enumerate(WAYS.items()):
                own = (f"training.seed={seed}", f'training.output_dir="{number}-{seed}"')
                outcome = train_project(root, overrides=(*settings, *own), say=lambda line: None)
                rows = list(read_rows(outcome.folder / "eval.jsonl"))
                curve = " | ".join(f"{row['return_mean']:.0f}" for row in rows)
                print(f"| {way} | {seed} | {rows[-1]['env_steps']} | {curve} |", flush=True)


if __name__ == "__main__":
    main()
