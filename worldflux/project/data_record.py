"""`worldflux data record`: episodes of a policy or a person, as npz files and a Minari data set."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Env

from worldflux.envs.faults import (
    begun,
    checked_environment,
    close_environment,
    guarded,
    stepped,
)
from worldflux.envs.namespaces import namespace_of
from worldflux.envs.observations import ObservationReader
from worldflux.envs.spaces import leaf_values, nested
from worldflux.envs.spec import spec_of
from worldflux.errors import ConfigurationError, WorldFluxError
from worldflux.evaluation.episodes import EvaluationStopped
from worldflux.files import replacing
from worldflux.optional import require
from worldflux.progress import counted

from .dataset_file import enter_project
from .environments import LONGEST, environment_maker
from .loader import load_project
from .places import project_file
from .provenance import environment_name
from .recording_policy import Act, action_problem, policy_named


@dataclass(frozen=True)
class Played:
    """An episode in the environment's own values: T actions, T + 1 observations by name."""

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    cut: bool  # at `LONGEST` steps

    def save(self, path: Path) -> None:
        """Write it as an npz file, which `data.source = "npz"` reads as one of a folder."""
        columns: dict[str, Any] = {
            "actions": self.actions,
            "rewards": self.rewards,
            "terminals": self.terminated,
        }
        for name, values in self.observations.items():
            columns["observations" + (f"/{name}" if name else "")] = values
        with replacing(path) as aside, aside.open("wb") as file:
            np.savez_compressed(file, **columns)


def record_episodes(
    out: Path,
    env_id: str | None,
    policy: str,
    *,
    episodes: int,
    seed: int,
    keys: Sequence[str] = (),
    minari_id: str | None = None,
) -> None:
    """Record episodes of an environment, or of the one of the project here; see `record`."""
    root, arguments = None, {}
    if keys and policy != "human":
        raise ConfigurationError(
            f"--key {keys[0]} is of --policy human, and the policy is {policy}",
            hint="add --policy human, or leave --key out",
        )
    if env_id is None:
        project = load_project(project_file())
        root, env_id = project.root, project.sections.environment
        arguments = dict(project.sections.environment_kwargs)
    enter_project(root or Path.cwd())  # a policy's module may be there
    make = environment_maker(root, env_id, arguments)
    name = env_id if root is None else environment_name(root, env_id)
    with guarded("make", at=f"{name}: "):
        env = checked_environment(make("rgb_array" if policy == "human" else None))
    try:
        spec_of(name, env.observation_space, env.action_space, None)  # what training would refuse
        act = policy_named(policy, env, seed, keys)
        record(env, act, out, episodes=episodes, seed=seed, minari_id=minari_id)
    finally:
        close_environment(name, env)


def record(
    env: Env,
    act: Act,
    out: Path,
    *,
    episodes: int,
    seed: int,
    minari_id: str | None = None,
    say: Callable[[str], None] = print,
) -> list[Played]:
    """Play episodes, reset with `seed`, `seed + 1`, ..., and write each as it ends.

    A person ends the recording by closing the window; the episode being played is left out.

    Args:
        out: a new or empty folder.
        minari_id: of a Minari data set that is also written, from all of them, at the end.

    Raises:
        ConfigurationError: when `out` holds something, or the data set exists; or for an action
            that the environment does not take.
        EnvironmentFault: the environment fails, or returns what training would refuse.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} exists and is not empty", hint="name a new folder")
    if minari_id is not None:
        _check_minari(minari_id)
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    out.mkdir(parents=True, exist_ok=True)
    played: list[Played] = []
    try:
        for number in range(episodes):
            played.append(_played(env, act, number, seed + number))
            played[-1].save(out / f"episode-{number:06d}.npz")
            total, steps = float(played[-1].rewards.sum()), len(played[-1].rewards)
            cut = "; cut there: the environment has no time limit (max_episode_steps)"
            ending = cut if played[-1].cut else ""
            say(f"episode {number}: return {total:.1f} in {steps} steps{ending}")
    except EvaluationStopped:
        say(f"stopped: {counted(len(played), 'episode')} recorded")
    except WorldFluxError:
        if played:
            say(f"{counted(len(played), 'whole episode')} before it: {out}")
        raise
    finally:
        if not any(out.iterdir()):
            for folder in made:
                folder.rmdir()
    if minari_id is not None and played:
        _write_minari(minari_id, env, played)
    return played


def _played(env: Env, act: Act, number: int, seed: int) -> Played:
    space, longest = env.observation_space, _longest(env)
    reader = ObservationReader("the environment", space, check_bounds=False)
    at = f"episode {number}, step 0: "
    obs = begun(env, seed, at)
    seen: list[dict[str, np.ndarray]] = []
    actions: list[np.ndarray] = []
    rewards: list[float] = []
    terminated = truncated = False
    while True:
        with guarded("observation", at=at):
            reader.read_one(obs)
            # Copies: the environment may use its arrays again, as the policy its action.
            seen.append({name: np.array(value) for name, value in leaf_values(space, obs)})
        if terminated or truncated or len(actions) == longest:
            break
        action = act(obs)
        if problem := action_problem(env.action_space, action):
            raise ConfigurationError(
                f"the policy's action at step {len(actions)} of episode {number} {problem}",
                hint=f"return an action of {env.action_space}",
            )
        at = f"episode {number}, step {len(actions) + 1}: "
        obs, reward, terminated, truncated = stepped(env, action, at)
        actions.append(np.array(action, env.action_space.dtype))
        rewards.append(reward)
    stacked = {name: np.stack([row[name] for row in seen]) for name in seen[0]}
    cut = not (terminated or truncated)
    return Played(stacked, np.stack(actions), np.array(rewards), terminated, cut)


def _longest(env: Env) -> int | None:
    """Steps after which an episode is cut; None if the environment has its own limit."""
    spec = env.spec
    if spec is not None and (spec.max_episode_steps or namespace_of(spec.id).ends_itself):
        return None
    return LONGEST


# --------------------------------------------------------------------------- Minari


def _check_minari(minari_id: str) -> None:
    require("a Minari data set", "minari", "minari")
    import minari
    from minari.dataset.minari_dataset import parse_dataset_id

    try:
        parse_dataset_id(minari_id)
    except (ValueError, TypeError):  # a name without a version is a TypeError
        raise ConfigurationError(
            f"--minari {minari_id}: not the id of a Minari data set",
            hint="write NAME-v0 or GROUP/NAME-v0, such as pendulum/mine-v0",
        ) from None
    try:
        local = minari.list_local_datasets()
    except (ValueError, TypeError, OSError) as error:
        raise ConfigurationError(
            f"the local Minari data sets cannot be listed: {error}",
            hint="MINARI_DATASETS_PATH (~/.minari/datasets) may hold data sets only: move the rest",
        ) from None
    if minari_id in local:
        raise ConfigurationError(
            f"there is a Minari data set {minari_id!r} already",
            hint=f"name another version, or delete it: minari delete {minari_id}",
        )


def _write_minari(minari_id: str, env: Env, played: Sequence[Played]) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer

    buffers = []
    for number, episode in enumerate(played):
        last = np.arange(len(episode.rewards)) == len(episode.rewards) - 1
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=nested(env.observation_space, episode.observations),
                actions=episode.actions,
                rewards=episode.rewards.tolist(),
                terminations=(last & episode.terminated).tolist(),
                truncations=(last & (not episode.terminated)).tolist(),
            )
        )
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of missing authors
        minari.create_dataset_from_buffers(minari_id, buffers, env=env)
