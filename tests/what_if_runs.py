"""Runs with recorded episodes that can be played again, made in seconds; nothing is learned."""

from __future__ import annotations

from pathlib import Path

from worldflux.evaluation.recordings import write_episodes
from worldflux.progress import SILENT
from worldflux.project.open_run import open_run
from worldflux.project.run import train_project

RUN = """
project_name = "tiny"
environment = "{env}"
model = "{model}"

[architecture]
{architecture}

[training]
total_steps = 2
batch_size = 2
sequence_length = 6
eval_interval = 2
save_interval = 1
device = "cpu"

[online_collection]
warmup_transitions = 20
pretrain = false
num_envs = 1

[evaluation]
episodes = 1
max_episode_steps = 60

[gameplay]
enabled = false
"""
DREAMER = ("dreamer:ci", "")
TDMPC2 = (
    "tdmpc2:ci",
    "use_decoder = true\nnum_samples = 16\nnum_elites = 4\nnum_pi_trajs = 2\niterations = 2",
)


def recorded_run(root: Path, env: str, family: tuple[str, str], episodes: int = 3) -> Path:
    """The folder of a run in `env` with the recording "fresh" of so many episodes.

    They are more than the environments that play them, so that not every one is the first of its
    environment.
    """
    root.mkdir(parents=True, exist_ok=True)
    model, architecture = family
    text = RUN.format(env=env, model=model, architecture=architecture)
    (root / "worldflux.toml").write_text(text)
    folder = train_project(root, say=lambda line: None).folder
    run = open_run(folder, "last")
    envs = run.environments(2)
    played = run.play(envs, episodes, 7, SILENT, record_episodes=episodes)
    envs.close()
    write_episodes(folder / "imagination" / "fresh.npz", played.recorded)
    return folder
