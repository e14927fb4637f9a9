"""Recorded episodes from elsewhere, checked and copied once into the replay's own format."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldflux.envs.actions import action_rows
from worldflux.envs.observations import ObservationReader
from worldflux.envs.returned import FLOAT32_MAX, BadValue, bad_number
from worldflux.envs.spec import EnvironmentSpec, spec_of
from worldflux.errors import (
    ConfigurationError,
    EnvironmentSetupError,
    ShapeMismatchError,
    TrainingError,
)

from .episode_rows import flags, per_step, with_last_observation
from .replay import ReplayBuffer

if TYPE_CHECKING:
    from .episode_ends import Dones

Array = NDArray[Any]

MINARI, NPZ, HDF5 = "minari", "npz", "hdf5"
OFFLINE_SOURCES = (MINARI, NPZ, HDF5)
NO_ENVIRONMENT = "none"  # as an id: recorded data whose environment is not at hand
_NAME_IT = "name the environment that the data was recorded in, or fix the data"


@dataclass(frozen=True)
class KnownEnvironment:
    """The environment that data was recorded in: its spaces, and its time limit in agent steps."""

    env_id: str
    observation_space: spaces.Space
    action_space: spaces.Space
    time_limit: int | None


@dataclass(frozen=True)
class RawEpisode:
    """One episode as recorded: T actions with what each gave, T + 1 observations.

    `obs` is an array or a dict of them; it has only T rows where the last one was not kept.
    """

    obs: Any
    actions: Array
    rewards: Array
    terminations: Array


@dataclass(frozen=True)
class OfflineData:
    """A recorded data set, opened and with its columns checked.

    Attributes:
        where: the file or data set, for messages.
        observation_space, action_space: what the recorded values mean.
        lengths: actions of each episode.
        num_rows: rows that the replay holds of it, at most: one for each observation.
        episodes: reads them, one at a time, in order.
        env_id: the environment that it was recorded in, where the data set names one.
        encoded: whether values are in the replay's own encoding already (a saved ReplayBuffer).
        notes: what was read off the values, or not read at all, for the user.
        unknown: why nothing can be learned from it without its environment, if so.
    """

    where: str
    observation_space: spaces.Space
    action_space: spaces.Space
    lengths: NDArray[np.int64]
    num_rows: int
    episodes: Callable[[], Iterator[RawEpisode]]
    env_id: str | None = None
    encoded: bool = False
    notes: tuple[str, ...] = ()
    unknown: str | None = None

    def summary(self) -> dict[str, Any]:
        """What it is and how much, JSON-ready, for the manifest."""
        return {
            "where": self.where,
            "recorded_in": self.env_id,
            "episodes": len(self.lengths),
            "transitions": int(self.lengths.sum()),
        }

    def spec(self, env_id: str) -> EnvironmentSpec:
        """The contract that the recorded values stand under.

        Raises:
            EnvironmentSetupError: when they have none here.
        """
        try:
            spec = spec_of(self.where, self.observation_space, self.action_space, None)
        except EnvironmentSetupError as error:
            hint = (
                "store them in such a form, or set environment to the one that it was recorded in"
            )
            raise EnvironmentSetupError(error.message, where=error.where, hint=hint) from None
        return dataclasses.replace(spec, env_id=env_id)

    def require_meaning(self) -> None:
        """Check that it can be learned from without an environment.

        Raises:
            ConfigurationError: saying what only the environment tells.
        """
        if self.unknown is not None:
            hint = "set environment to the one that the data was recorded in"
            raise ConfigurationError(
                f"{self.unknown}; no environment says what that means", where=self.where, hint=hint
            )


@dataclass(frozen=True)
class Tally:
    """What recorded data or a replay holds; `rewards` is their sum."""

    episodes: int
    transitions: int
    true_ends: int
    time_limits: int
    rewards: float

    def __str__(self) -> str:
        return (
            f"{self.episodes:,} episodes ({self.true_ends:,} true ends, {self.time_limits:,} time "
            f"limits), {self.transitions:,} transitions, sum of rewards {self.rewards:.10g}"
        )


@dataclass(frozen=True)
class Copied:
    """What was read and what the replay took; `returns` of each episode as recorded."""

    recorded: Tally
    replay: Tally
    returns: Sequence[float]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, for the manifest."""
        tallies = {n: dataclasses.asdict(getattr(self, n)) for n in ("recorded", "replay")}
        return {**tallies, "notes": list(self.notes)}


def open_offline(
    source: str,
    location: str,
    known: KnownEnvironment | None = None,
    dones: Dones | None = None,
) -> OfflineData:
    """Open a data set and check its columns; nothing is copied yet.

    Args:
        source: "minari" with a data set id, "npz" or "hdf5" with a path, as `location`.
        known: the environment, where it is at hand: recorded values are read as its own, and its
            time limit tells lost ends.
        dones: what a lone `dones` column of a file means (docs/data.md).

    Raises:
        MissingDependencyError: naming the extra that reads it.
        ConfigurationError: when it is not there, or a column is missing, does not fit, or leaves
            open where or why episodes end.
    """
    if source == MINARI:
        from .offline_minari import open_minari

        data = open_minari(location)
        if known is not None:
            _check_actions(data, known)
            if data.env_id not in (None, known.env_id):
                note = f"recorded in {data.env_id}, read as of {known.env_id}"
                data = dataclasses.replace(data, notes=(note,))
    else:
        from .offline_files import open_hdf5, open_npz

        data = (open_npz if source == NPZ else open_hdf5)(Path(location), known, dones)
    if known is None or data.encoded:
        return data
    return dataclasses.replace(
        data, observation_space=known.observation_space, action_space=known.action_space
    )


def _check_actions(data: OfflineData, known: KnownEnvironment) -> None:
    """Recorded bounds are those of the environment: other ones would rescale what was played."""
    own, theirs = data.action_space, known.action_space
    same = type(own) is type(theirs) and own.shape == theirs.shape
    if same and isinstance(own, spaces.Box) and isinstance(theirs, spaces.Box):
        same = np.allclose(own.low, theirs.low) and np.allclose(own.high, theirs.high)
    elif same:
        same = own == theirs
    if not same:
        raise ConfigurationError(
            f"the recorded actions ({own}) are not those of {known.env_id} ({theirs})",
            where=data.where,
            hint=_NAME_IT,
        )


def check_fits(data: OfflineData, spec: EnvironmentSpec) -> None:
    """Check recorded data, and the values of its first episode, against an environment's contract.

    Raises:
        ConfigurationError: naming what differs, with both values.
    """
    reader = _reader(data)
    with _told(data, 0):
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
    and any other last step is left out.

    Raises:
        ConfigurationError: naming the episode, the column and the value that does not fit.
        TrainingError: when the replay does not hold what was recorded.
    """
    reader, recorded, copied = _reader(data), _Counts(), _Counts()
    repeated = left_out = clipped = number = 0
    episodes = data.episodes()
    while True:
        with _told(data, number):
            raw = next(episodes, None)
            if raw is None:
                break
            episode, rewards, whole = _converted(raw, reader, data.action_space)
            terminal, kept = bool(episode["dones"][-1]), len(episode["rewards"])
            recorded.add(len(rewards), rewards, terminal)
            if kept:
                buffer.add_episode(**episode)
                _read_back(buffer, kept, rewards[:kept], terminal, copied, number)
        clipped += _beyond_bounds(data.action_space, raw.actions)
        repeated += not whole and terminal
        left_out += not whole and not terminal
        number += 1
    notes = {
        "last action and reward left out, without the observation after it": left_out,
        "last observation repeated, without the one after a true end": repeated,
        "action numbers clipped to their bounds, beyond by a rounding error": clipped,
    }
    told = [f"{text}: {count:,}" for text, count in notes.items() if count]
    return Copied(recorded.tally(), copied.tally(), recorded.returns, (*data.notes, *told))


def replay_of(data: OfflineData, kind: type[ReplayBuffer], capacity: int) -> ReplayBuffer:
    """A buffer of at least `capacity` rows that holds all that was recorded.

    Raises:
        ConfigurationError: when a value does not fit, or only an environment says what it means.
    """
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


class _Counts:
    def __init__(self) -> None:
        self.returns: list[float] = []
        self._transitions = self._true_ends = 0

    def add(self, steps: int, rewards: Array, terminal: bool) -> None:
        self.returns.append(float(rewards.sum(dtype=np.float64)))
        self._transitions += steps
        self._true_ends += terminal

    def tally(self) -> Tally:
        episodes = len(self.returns)
        limits = episodes - self._true_ends
        return Tally(episodes, self._transitions, self._true_ends, limits, float(sum(self.returns)))


def _read_back(
    buffer: ReplayBuffer, kept: int, rewards: Array, terminal: bool, copied: _Counts, number: int
) -> None:
    """Count what the replay holds of the newest episode, and hold it against what was recorded."""
    stop = buffer.steps_written
    rows = buffer.rows(stop - kept - 1, stop, "reward", "is_first", "is_last", "is_terminal")
    held = {name: column[:, 0] for name, column in rows.items()}
    ends = [bool(held[name][1:-1].any()) for name in ("is_first", "is_last", "is_terminal")]
    same = np.array_equal(held["reward"][1:], rewards) and held["is_terminal"][-1] == terminal
    if not same or any(ends) or not held["is_first"][0] or not held["is_last"][-1]:
        raise TrainingError(f"the replay does not hold episode {number} as it was recorded")
    copied.add(len(held["reward"]) - 1, held["reward"], bool(held["is_terminal"][-1]))


def _beyond_bounds(space: spaces.Space, actions: Array) -> int:
    """How many numbers of these actions are clipped: by no more than rounding, as was checked."""
    if not isinstance(space, spaces.Box):
        return 0
    rows = np.asarray(actions).reshape(-1, *space.shape)
    return int(((rows < space.low) | (rows > space.high)).sum())


def _reader(data: OfflineData) -> ObservationReader:
    return ObservationReader(data.where, data.observation_space, check_bounds=False)


@contextmanager
def _told(data: OfflineData, number: int) -> Iterator[None]:
    """A value that does not fit, told with its episode."""
    try:
        yield
    except (BadValue, ShapeMismatchError) as error:
        problem = error.message if isinstance(error, ShapeMismatchError) else str(error.problem)
        at = f", row {error.row}: {error.key}" if isinstance(error, BadValue) else ":"
        raise ConfigurationError(
            f"episode {number}{at} {problem}", where=data.where, hint=error.hint or _NAME_IT
        ) from None


def _converted(
    episode: RawEpisode, reader: ObservationReader, action_space: spaces.Space
) -> tuple[dict[str, Any], Array, bool]:
    """What `ReplayBuffer.add_episode` takes, all recorded rewards, and whether the episode has
    the observation after its last action."""
    numbers = per_step("rewards", episode.rewards)
    bad = np.flatnonzero(~(abs(numbers) <= FLOAT32_MAX))  # NaN too
    if len(bad):
        raise bad_number(int(bad[0]), float(numbers[bad[0]]))
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
    read = reader.read(episode.obs, _row_count(episode.obs))
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


def _row_count(obs: Any) -> int:
    """Rows of the first part of raw observations, however nested."""
    while isinstance(obs, (Mapping, tuple)):
        obs = next(iter(obs.values() if isinstance(obs, Mapping) else obs), ())
    return len(obs)
