"""`worldflux data record`: episodes of a policy or a person, as npz files and a Minari data set."""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import Env, spaces

from worldflux.core.config import ACTION_MASK
from worldflux.envs.spaces import leaf_values, nested
from worldflux.errors import ConfigurationError
from worldflux.evaluation.episodes import EvaluationStopped
from worldflux.evaluation.window import DEFAULT_FPS, Window
from worldflux.files import replacing
from worldflux.optional import require

from .dataset_file import enter_project
from .environments import environment_maker
from .loader import load_project
from .places import project_file

Act = Callable[[Any], Any]
"""From the environment's observation to its action."""


@dataclass(frozen=True)
class Played:
    """An episode in the environment's own values: T actions, T + 1 observations by name."""

    observations: dict[str, np.ndarray]
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool

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
    if env_id is None:
        project = load_project(project_file())
        root, env_id = project.root, project.sections.environment
        arguments = dict(project.sections.environment_kwargs)
    enter_project(root or Path.cwd())  # a policy's module may be there
    make = environment_maker(root, env_id, arguments)
    env = make("rgb_array" if policy == "human" else None)
    try:
        act = policy_named(policy, env, seed, keys)
        record(env, act, out, episodes=episodes, seed=seed, minari_id=minari_id)
    finally:
        env.close()


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
        ConfigurationError: when `out` holds something, or the data set exists.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigurationError(f"{out} exists and is not empty", hint="name a new folder")
    if minari_id is not None:
        _check_minari(minari_id)
    out.mkdir(parents=True, exist_ok=True)
    played: list[Played] = []
    try:
        for number in range(episodes):
            played.append(_played(env, act, seed + number))
            played[-1].save(out / f"episode-{number:06d}.npz")
            total, steps = float(played[-1].rewards.sum()), len(played[-1].rewards)
            say(f"episode {number}: return {total:.1f} in {steps} steps")
    except EvaluationStopped:
        say(f"stopped: {len(played)} episodes are recorded")
    if minari_id is not None and played:
        _write_minari(minari_id, env, played)
    return played


def _played(env: Env, act: Act, seed: int) -> Played:
    obs, _ = env.reset(seed=seed)
    seen, actions, rewards = [obs], [], []
    terminated = truncated = False
    while not (terminated or truncated):
        action = act(seen[-1])
        obs, reward, terminated, truncated, _ = env.step(action)
        seen.append(obs)
        actions.append(np.array(action))  # a copy: the policy may use its array again
        rewards.append(float(reward))
    space = env.observation_space
    rows = [dict(leaf_values(space, each)) for each in seen]
    stacked = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    return Played(stacked, np.stack(actions), np.array(rewards), bool(terminated))


# --------------------------------------------------------------------------- who acts


def policy_named(name: str, env: Env, seed: int, keys: Sequence[str] = ()) -> Act:
    """The policy that `--policy` names: "random", "human", or `module:function` of this folder."""
    if name == "random":
        return _random(env.action_space, seed)
    if name == "human":
        return Keyboard(env, keys).act
    module, _, function = name.partition(":")
    try:
        found: Act = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            f"--policy {name}: {error}",
            hint="write random, human, or MODULE:FUNCTION, a function from observation to action",
        ) from None
    return found


def _random(space: spaces.Space, seed: int) -> Act:
    """Uniformly random actions; of Discrete ones those that an observed mask allows."""
    space.seed(seed)

    def act(obs: Any) -> Any:
        masked = isinstance(space, spaces.Discrete) and isinstance(obs, Mapping)
        mask = obs.get(ACTION_MASK) if masked else None
        return space.sample() if mask is None else space.sample(mask=np.asarray(mask, np.int8))

    return act


class Keyboard:
    """A person acts: the keys that are held decide each step, in a window that shows frames.

    Args:
        keys: "left=0", "left+up=[0, 1]", and "none=2" for no key, with actions as JSON; by default
            those that the environment names (`get_keys_to_action`).

    Raises:
        ConfigurationError: where neither names keys, or one is unknown, or an action is not of the
            space.
    """

    def __init__(self, env: Env, keys: Sequence[str]) -> None:
        self._window = Window("recording", env.metadata.get("render_fps") or DEFAULT_FPS)
        import pygame

        self._pygame, self._env = pygame, env
        own: dict[Any, Any] = getattr(env.unwrapped, "get_keys_to_action", dict)()
        named = dict(map(self._parsed, keys)) or {
            frozenset(key if isinstance(key, int) else ord(key) for key in held): action
            for held, action in own.items()
        }
        if not named:
            raise ConfigurationError(
                "no keys: the environment does not name any",
                hint="--key left=0 --key right=2 --key none=1",
            )
        space: Any = env.action_space
        idle = int(space.start) if isinstance(space, spaces.Discrete) else space.sample() * 0
        self._idle: Any = named.pop(frozenset(), idle)
        self._actions = sorted(named.items(), key=lambda item: -len(item[0]))

    def act(self, obs: Any) -> Any:
        """The action of the most held keys; EvaluationStopped once the window is closed."""
        self._window.show(np.asarray(self._env.render()))
        held = self._pygame.key.get_pressed()
        for keys, action in self._actions:
            if all(held[key] for key in keys):
                return action
        return self._idle

    def _parsed(self, text: str) -> tuple[frozenset[int], Any]:
        names, equals, value = text.partition("=")
        space = self._env.action_space
        try:
            if not equals:
                raise ValueError("expected KEY=ACTION")
            given = json.loads(value)
            action = int(given) if space.shape == () else np.array(given, space.dtype)
            codes = [] if names == "none" else map(self._pygame.key.key_code, names.split("+"))
            keys = frozenset(codes)
        except (ValueError, TypeError) as error:
            raise ConfigurationError(f"--key {text}: {error}") from None
        if not space.contains(action):
            raise ConfigurationError(f"--key {text}: {value} is no action of {space}")
        return keys, action


# --------------------------------------------------------------------------- Minari


def _check_minari(minari_id: str) -> None:
    require("a Minari data set", "minari", "minari")
    import minari

    if minari_id in minari.list_local_datasets():
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
