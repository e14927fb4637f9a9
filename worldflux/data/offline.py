"""Recorded data, copied once into the replay's own format: checked, counted and read back."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces

from worldflux.envs.actions import action_rows
from worldflux.envs.faults import Failure, check_rewards
from worldflux.envs.namespaces import NO_ENVIRONMENT
from worldflux.envs.observations import ObservationReader
from worldflux.envs.spec import EnvironmentSpec
from worldflux.errors import ConfigurationError, ShapeMismatchError, TrainingError
from worldflux.progress import counted

from .episode_rows import flags, per_step, with_last_observation
from .recorded import (
    NAME_IT,
    KnownEnvironment,
    OfflineData,
    RawEpisode,
    open_offline,
    row_count,
)
from .replay import ReplayBuffer

__all__ = [
    "Copied",
    "KnownEnvironment",
    "Tally",
    "action_rows",
    "copy_episodes",
    "open_offline",
]


@dataclass(frozen=True)
class Tally:
    """What recorded data or a replay holds; `rewards` is their sum."""

    episodes: int = 0
    transitions: int = 0
    true_ends: int = 0
    time_limits: int = 0
    rewards: float = 0.0

    def with_episode(self, rewards: np.ndarray, terminal: bool) -> Tally:
        return Tally(
            self.episodes + 1,
            self.transitions + len(rewards),
            self.true_ends + terminal,
            self.time_limits + (not terminal),
            self.rewards + _sum(rewards),
        )

    def __str__(self) -> str:
        return (
            f"{counted(self.episodes, 'episode', ',')} "
            f"({counted(self.true_ends, 'true end', ',')}, "
            f"{counted(self.time_limits, 'time limit', ',')}), "
            f"{counted(self.transitions, 'transition', ',')}, sum of rewards {self.rewards:.10g}"
        )


@dataclass(frozen=True)
class Copied:
    """What was read and what the replay took; `returns` of each episode as recorded."""

    recorded: Tally
    replay: Tally
    returns: Sequence[float]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        tallies = {n: dataclasses.asdict(getattr(self, n)) for n in ("recorded", "replay")}
        return {**tallies, "notes": list(self.notes)}


def check_fits(data: OfflineData, spec: EnvironmentSpec) -> None:
    """Check recorded data, and the values of its first episode, against an environment's contract.

    Raises ConfigurationError naming what differs, with both values.
    """
    reader = _reader(data)
    with _named_episode(data, 0):
        for episode in itertools.islice(data.episodes(), 1):
            _converted(episode, reader, data.action_space)
    own = data.spec(spec.env_id)
    for name in ("replay_shapes", "action_dim", "action_type"):
        recorded, expected = getattr(own, name), getattr(spec, name)
        if recorded != expected:
            word = {"replay_shapes": "observations"}.get(name, name)
            raise ConfigurationError(
                f"the recorded {word} ({recorded}) are not those of {spec.env_id} ({expected})",
                where=data.where,
                hint="name the environment that the data was recorded in",
            )


def copy_episodes(data: OfflineData, buffer: ReplayBuffer) -> Copied:
    """Copy every episode into a one-stream buffer; values are checked on the way.

    Where the observation after the last action is missing, a true end repeats the one before it,
    and any other last step is left out. Raises ConfigurationError naming the episode, the column
    and the value that does not fit; TrainingError if the replay does not hold what was recorded.
    """
    reader, recorded, copied, returns = _reader(data), Tally(), Tally(), []
    repeated = left_out = clipped = 0
    episodes = data.episodes()
    while True:
        with _named_episode(data, recorded.episodes):
            raw = next(episodes, None)
            if raw is None:
                break
            episode, rewards, whole = _converted(raw, reader, data.action_space)
            terminal, kept = bool(episode["dones"].any()), len(episode["rewards"])
            if kept:
                buffer.add_episode(**episode)
                _check_newest(buffer, rewards[:kept], terminal, recorded.episodes)
                copied = copied.with_episode(rewards[:kept], terminal)
            recorded = recorded.with_episode(rewards, terminal)
            returns.append(_sum(rewards))
        clipped += _beyond_bounds(data.action_space, raw.actions)
        repeated += not whole and terminal
        left_out += not whole and not terminal
    notes = {
        "last action and reward left out, without the observation after it": left_out,
        "last observation repeated, without the one after a true end": repeated,
        "action numbers clipped to their bounds, beyond by a rounding error": clipped,
    }
    counted = [f"{text}: {count:,}" for text, count in notes.items() if count]
    return Copied(recorded, copied, returns, (*data.notes, *counted))


def replay_of(data: OfflineData, kind: type[ReplayBuffer], capacity: int) -> ReplayBuffer:
    data.require_meaning()
    spec = data.spec(NO_ENVIRONMENT)
    buffer = kind(max(2, data.num_rows, capacity), spec.replay_shapes, spec.action_dim)
    copy_episodes(data, buffer)
    return buffer


def read_through(data: OfflineData) -> Copied:
    """Everything that was recorded, checked and counted through a replay of one episode."""
    spec, longest = data.spec(NO_ENVIRONMENT), int(data.lengths.max(initial=1))
    return copy_episodes(data, ReplayBuffer(longest + 1, spec.replay_shapes, spec.action_dim))


def tally_of(buffer: ReplayBuffer) -> Tally:
    """What a one-stream replay of whole episodes holds."""
    rows = buffer.rows(
        buffer.oldest_step, buffer.steps_written, "is_first", "is_terminal", "reward"
    )
    episodes, true_ends = int(rows["is_first"].sum()), int(rows["is_terminal"].sum())
    transitions, rewards = len(buffer) - episodes, float(rows["reward"].sum(dtype=np.float64))
    return Tally(episodes, transitions, true_ends, episodes - true_ends, rewards)


def _sum(rewards: np.ndarray) -> float:
    return float(rewards.sum(dtype=np.float64))


def _check_newest(buffer: ReplayBuffer, rewards: np.ndarray, terminal: bool, number: int) -> None:
    start, stop = buffer.steps_written - len(rewards) - 1, buffer.steps_written
    rows = buffer.rows(start, stop, "reward", "is_first", "is_last", "is_terminal")
    held = {name: column[:, 0] for name, column in rows.items()}
    ends = [bool(held[name][1:-1].any()) for name in ("is_first", "is_last", "is_terminal")]
    same = np.array_equal(held["reward"][1:], rewards) and held["is_terminal"][-1] == terminal
    if not same or any(ends) or not held["is_first"][0] or not held["is_last"][-1]:
        raise TrainingError(f"the replay does not hold episode {number} as it was recorded")


def _beyond_bounds(space: spaces.Space, actions: np.ndarray) -> int:
    """How many numbers of these actions are clipped: by no more than rounding, as was checked."""
    if not isinstance(space, spaces.Box):
        return 0
    rows = np.asarray(actions).reshape(-1, *space.shape)
    return int(((rows < space.low) | (rows > space.high)).sum())


def _reader(data: OfflineData) -> ObservationReader:
    return ObservationReader(data.where, data.observation_space, check_bounds=False)


@contextmanager
def _named_episode(data: OfflineData, number: int) -> Iterator[None]:
    """Names the data and the episode of a value that does not fit."""
    try:
        yield
    except (Failure, ShapeMismatchError) as error:
        problem = error.message if isinstance(error, ShapeMismatchError) else str(error.problem)
        at = f", row {error.row}: {error.key}" if isinstance(error, Failure) else ":"
        raise ConfigurationError(
            f"episode {number}{at} {problem}", where=data.where, hint=error.hint or NAME_IT
        ) from None


def _converted(
    episode: RawEpisode, reader: ObservationReader, action_space: spaces.Space
) -> tuple[dict[str, Any], np.ndarray, bool]:
    """What `ReplayBuffer.add_episode` takes, all recorded rewards, and whether the episode has
    the observation after its last action."""
    numbers = per_step("rewards", episode.rewards)
    check_rewards(numbers)
    rewards = numbers.astype(np.float32)
    ended = flags("terminations", episode.terminations)
    steps = len(rewards)
    if steps == 0 or not len(episode.actions) == len(ended) == steps:
        raise ShapeMismatchError(
            f"{len(episode.actions)} actions, {steps} rewards and {len(ended)} ends: expected as "
            "many of each, at least one"
        )
    if ended[:-1].any():
        raise ShapeMismatchError("an episode ends once, at its last step: split it there")
    read = reader.read(episode.obs, row_count(episode.obs))
    obs, kept = with_last_observation(read, steps, bool(ended[-1]))
    last = np.arange(kept) == kept - 1
    return (
        {
            "obs": obs[""] if obs.keys() == {""} else obs,
            "actions": action_rows(action_space, episode.actions)[:kept],
            "rewards": rewards[:kept],
            "dones": last & ended[-1],
        },
        rewards,
        obs is read,
    )
