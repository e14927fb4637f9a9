"""Recorded episodes from elsewhere, checked and copied once into the replay's own format."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldflux.envs.actions import action_rows
from worldflux.envs.observations import BadValue, ObservationReader
from worldflux.envs.spec import EnvironmentSpec, spec_of
from worldflux.errors import ConfigurationError, ShapeMismatchError

from .replay import ReplayBuffer

Array = NDArray[Any]

MINARI, NPZ, HDF5 = "minari", "npz", "hdf5"
OFFLINE_SOURCES = (MINARI, NPZ, HDF5)


@dataclass(frozen=True)
class RawEpisode:
    """One episode as recorded: T actions with what each gave, T + 1 observations.

    `obs` is an array or a dict of them; it has only T rows where the last one was not kept.
    """

    obs: Any
    actions: Array
    rewards: Array
    terminations: Array
    truncations: Array


@dataclass(frozen=True)
class OfflineData:
    """A recorded data set, opened and with its columns checked.

    Attributes:
        where: the file or data set, for messages.
        observation_space, action_space: what the recorded values mean.
        lengths: actions of each episode.
        last_obs: whether each episode has the observation after its last action.
        episodes: reads them, one at a time, in order.
        env_id: the environment that it was recorded in, where the data set names one.
        encoded: whether values are in the replay's own encoding already (a saved ReplayBuffer).
    """

    where: str
    observation_space: spaces.Space
    action_space: spaces.Space
    lengths: NDArray[np.int64]
    last_obs: bool
    episodes: Callable[[], Iterator[RawEpisode]]
    env_id: str | None = None
    encoded: bool = False

    @property
    def num_rows(self) -> int:
        """Rows that the replay holds of it: one for each observation that was kept."""
        kept = self.lengths if self.last_obs else self.lengths[self.lengths > 1] - 1
        return int(kept.sum()) + len(kept)

    def summary(self) -> dict[str, Any]:
        """What it is and how much, JSON-ready, for the manifest."""
        return {
            "where": self.where,
            "recorded_in": self.env_id,
            "episodes": len(self.lengths),
            "transitions": int(self.lengths.sum()),
            "last_observations": "kept" if self.last_obs else "missing",
        }

    def spec(self, env_id: str, time_limit: int | None = None) -> EnvironmentSpec:
        """The contract that the recorded values stand under."""
        return spec_of(env_id, self.observation_space, self.action_space, time_limit)


def open_offline(
    source: str, location: str, env_spaces: tuple[spaces.Space, spaces.Space] | None = None
) -> OfflineData:
    """Open a data set and check its columns; nothing is copied yet.

    Args:
        source: "minari" with a data set id, "npz" or "hdf5" with a path, as `location`.
        env_spaces: observation and action space of the environment, where it is known: the
            recorded values are then read as its own.

    Raises:
        MissingDependencyError: naming the extra that reads it.
        ConfigurationError: when it is not there, or a column is missing or does not fit.
    """
    if source == MINARI:
        from .offline_minari import open_minari

        data = open_minari(location)
    else:
        from .offline_files import open_hdf5, open_npz

        opener = open_npz if source == NPZ else open_hdf5
        data = opener(Path(location), env_spaces)
    if env_spaces is None or data.encoded:
        return data
    return dataclasses.replace(data, observation_space=env_spaces[0], action_space=env_spaces[1])


def check_fits(data: OfflineData, spec: EnvironmentSpec) -> None:
    """Check recorded data, and the values of its first episode, against an environment's contract.

    Raises:
        ConfigurationError: naming what differs, with both values.
    """
    reader = _reader(data)
    for episode in itertools.islice(data.episodes(), 1):
        with _told(data, 0):
            _converted(_without_lost_step(episode, data.last_obs), reader, data.action_space)
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


def copy_episodes(data: OfflineData, buffer: ReplayBuffer) -> None:
    """Copy every episode into a one-stream buffer; values are checked on the way.

    Where the last observations are missing, the last action of each episode has no result: it is
    left out, and the episode then ends as one that was cut off.

    Raises:
        ConfigurationError: naming the episode, the column and the value that does not fit.
    """
    reader = _reader(data)
    for number, recorded in enumerate(data.episodes()):
        episode = _without_lost_step(recorded, data.last_obs)
        if len(episode.rewards):
            with _told(data, number):
                buffer.add_episode(**_converted(episode, reader, data.action_space))


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
            f"episode {number}{at} {problem}",
            where=data.where,
            hint="name the environment that the data was recorded in, or mend the data",
        ) from None


def _without_lost_step(episode: RawEpisode, last_obs: bool) -> RawEpisode:
    if last_obs:
        return episode
    kept = len(episode.rewards) - 1
    cut = np.zeros(max(kept, 0), bool)
    cut[-1:] = True
    return RawEpisode(
        episode.obs, episode.actions[:kept], episode.rewards[:kept], np.zeros_like(cut), cut
    )


def _converted(
    episode: RawEpisode, reader: ObservationReader, action_space: spaces.Space
) -> dict[str, Any]:
    """What `ReplayBuffer.add_episode` takes."""
    obs = reader.read(episode.obs, len(episode.rewards) + 1)
    rewards = np.asarray(episode.rewards, np.float32).reshape(-1)
    bad = np.flatnonzero(~np.isfinite(rewards))
    if len(bad):
        raise BadValue(int(bad[0]), "reward", f"is not finite: {rewards[bad[0]]}")
    terminal = np.asarray(episode.terminations, bool).reshape(-1)
    cut = np.asarray(episode.truncations, bool).reshape(-1) & ~terminal
    return {
        "obs": obs[""] if obs.keys() == {""} else obs,
        "actions": action_rows(action_space, episode.actions),
        "rewards": rewards,
        "dones": terminal | cut,
        "truncations": cut,
    }
