"""Runs with recorded episodes that can be played again, made in seconds; nothing is learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldflux.envs.actions import environment_actions
from worldflux.evaluation.recordings import read_episodes, write_episodes
from worldflux.progress import SILENT
from worldflux.project.open_run import OpenRun, open_run
from worldflux.project.run import train_project
from worldflux.project.what_if import Moment, Reality, moment_of

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


def fresh_rollout(run: OpenRun, seed: int, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observations and rewards of Gymnasium's own environment, in this process."""
    env = run.maker()(None)
    obs, _ = env.reset(seed=seed)
    seen, rewards = [obs], []
    for action in environment_actions(env.action_space, actions):
        obs, reward, *_ = env.step(action)
        seen.append(obs)
        rewards.append(reward)
    env.close()
    rows = np.stack(seen)
    return rows.transpose(0, 3, 1, 2) if rows.ndim == 4 else rows, np.array(rewards, np.float32)


def changed(run: OpenRun, moment: Moment, actions: np.ndarray) -> Reality:
    reality = Reality(run, moment.episode.index)
    reality.go(moment)
    for action in actions:
        if not reality.is_over:
            reality.act(action)
    reality.envs.close()
    return reality


def differences(run: OpenRun, number: int, rng: np.random.Generator, steps: int = 6) -> list[str]:
    """What of a random moment of an episode, with random actions from there on, is not as in a
    fresh rollout of Gymnasium's environment with the same actions."""
    (path,) = (run.folder / "imagination").glob("fresh.npz")
    stored = read_episodes(path)[number]
    moment = moment_of(run.folder, f"fresh/{number}:{rng.integers(len(stored))}")
    reality = Reality(run, 0)
    given = reality.envs.spec.random_actions(rng, steps)
    reality.envs.close()
    episode = changed(run, moment, given).episode()
    obs, rewards = fresh_rollout(run, int(stored.seed or 0), episode.actions)
    same = {
        "observations": np.array_equal(episode.obs["obs"], obs.astype(episode.obs["obs"].dtype)),
        "rewards": np.array_equal(episode.rewards, rewards),
        "past": np.array_equal(episode.actions[: moment.step], stored.actions[: moment.step]),
        "future": len(episode) > moment.step,
    }
    return [f"{moment}: {name}" for name, is_same in same.items() if not is_same]
