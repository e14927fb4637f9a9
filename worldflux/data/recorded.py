"""Recorded episodes, opened: Minari and LeRobot data sets, npz and HDF5 files, saved replays.

Row t of a file holds o_t, the action taken at it, and the reward and ends that it gave, episodes
end to end (docs/data.md).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from worldflux.envs.actions import action_layout
from worldflux.envs.faults import Failure
from worldflux.envs.spaces import ImageSpace, named_leaves, nested
from worldflux.envs.spec import EnvironmentSpec, spec_of
from worldflux.errors import ConfigurationError, EnvironmentSetupError
from worldflux.optional import require

from .columns import FLAGS, OBS
from .episode_files import episodes_of_folder
from .lerobot import LeRobotDataset
from .recorded_columns import Columns, Dones, Ends, episode_ends, shown
from .replay_storage import STEPS_WRITTEN, plain_columns
from .step_files import hdf5_columns, npz_columns

MINARI, NPZ, HDF5, LEROBOT = "minari", "npz", "hdf5", "lerobot"
OFFLINE_SOURCES = (MINARI, NPZ, HDF5, LEROBOT)
NAME_IT = "name the environment that the data was recorded in, or fix the data"


@dataclass(frozen=True)
class KnownEnvironment:
    """The environment that data was recorded in: its spaces, and its time limit in agent steps.

    `task` is the task whose `episode_length` that limit is, if it is one.
    """

    env_id: str
    observation_space: spaces.Space
    action_space: spaces.Space
    time_limit: int | None
    task: str | None = None


@dataclass(frozen=True)
class RawEpisode:
    """One episode as recorded: T actions with what each gave, T + 1 observations (or T)."""

    obs: Any
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray


@dataclass(frozen=True)
class OfflineData:
    """A recorded data set, opened and with its columns checked.

    Attributes:
        lengths: actions of each episode.
        num_rows: rows that the replay holds of it, at most: one for each observation.
        episodes: reads them, one at a time, in order.
        env_id: the environment that it was recorded in, where the data set names one.
        notes: what was read off the values, or not read at all, for the user.
        unknown: why nothing can be learned from it without its environment, if so.
    """

    where: str
    observation_space: spaces.Space
    action_space: spaces.Space
    lengths: np.ndarray
    num_rows: int
    episodes: Callable[[], Iterator[RawEpisode]]
    env_id: str | None = None
    notes: tuple[str, ...] = ()
    unknown: str | None = None

    def summary(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "recorded_in": self.env_id,
            "episodes": len(self.lengths),
            "transitions": int(self.lengths.sum()),
        }

    def spec(self, env_id: str) -> EnvironmentSpec:
        """The contract of the recorded values, or EnvironmentSetupError."""
        try:
            spec = spec_of(self.where, self.observation_space, self.action_space, None)
        except EnvironmentSetupError as error:
            raise EnvironmentSetupError(
                error.message,
                where=error.where,
                hint="store them in such a form, or set environment to the one that it was "
                "recorded in",
            ) from None
        return dataclasses.replace(spec, env_id=env_id)

    def require_meaning(
        self, hint: str = "set environment to the one that the data was recorded in"
    ) -> None:
        """Raise ConfigurationError if only an environment says what the values mean."""
        if self.unknown is not None:
            raise ConfigurationError(
                f"{self.unknown}; no environment says what that means", where=self.where, hint=hint
            )


def open_offline(
    source: str,
    location: str,
    known: KnownEnvironment | None = None,
    dones: Dones | None = None,
    image_size: tuple[int, int] | None = None,
    features: Sequence[str] | None = None,
) -> OfflineData:
    """Open a data set and check its columns; nothing is copied yet.

    Args:
        source: "minari" with a data set id, "npz", "hdf5" or "lerobot" with a path, as `location`;
            "npz" also takes a folder of files, one episode each.
        known: the environment, if available: recorded values are read as its own, and its time
            limit shows lost ends.
        dones: what a lone `dones` column of a file means (docs/data.md).
        image_size: (height, width) that images of a LeRobot data set are resized to.
        features: the observations of a LeRobot data set that are read; None: all.
    """
    if source == MINARI:
        data = _minari(location)
        if known is not None:
            _check_actions(data, known)
            if data.env_id not in (None, known.env_id):
                note = f"recorded in {data.env_id}, read as of {known.env_id}"
                data = dataclasses.replace(data, notes=(note,))
    else:
        path = Path(location)
        location = str(path)
        notes: list[str] = []
        stops = None
        if source == LEROBOT:
            found, notes = LeRobotDataset(path, image_size, features).columns(dones)
        elif source == NPZ and path.is_dir():
            found, stops = episodes_of_folder(path)
        else:
            found = npz_columns(path) if source == NPZ else hdf5_columns(path)
        if source == NPZ and STEPS_WRITTEN in found:
            data = _saved_replay(found, location, known)
            unused = "data.dones is not used: a saved replay says why episodes ended"
            return data if dones in (None, "open") else dataclasses.replace(data, notes=(unused,))
        limits = () if known is None else (known.env_id, known.time_limit, known.task)
        data = _columns(Columns(found, location, stops, *limits), known, dones)
        data = dataclasses.replace(data, notes=(*notes, *data.notes))
    if known is None:
        return data
    return dataclasses.replace(
        data, observation_space=known.observation_space, action_space=known.action_space
    )


# --------------------------------------------------------------------------- Minari


def _minari(dataset_id: str) -> OfflineData:
    """A data set from the local folder of data sets (`MINARI_DATASETS_PATH`)."""
    require("a Minari data set", "minari", "minari")
    import minari

    where = f"minari:{dataset_id}"
    try:
        dataset = minari.load_dataset(dataset_id)
    except (FileNotFoundError, ValueError, KeyError, OSError) as error:
        raise ConfigurationError(
            f"there is no readable Minari data set {dataset_id!r} on this machine: {error}",
            where=where,
            hint=f"minari download {dataset_id}; minari list local shows what is here",
        ) from None

    def episodes() -> Iterator[RawEpisode]:
        for episode in dataset.iterate_episodes():
            yield RawEpisode(
                episode.observations, episode.actions, episode.rewards, episode.terminations
            )

    chosen = dataset.episode_indices
    steps = [int(meta["total_steps"]) for meta in dataset.storage.get_episode_metadata(chosen)]
    recorded = dataset.env_spec
    return OfflineData(
        where=where,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        lengths=np.array(steps, np.int64),
        num_rows=sum(steps) + len(steps),
        episodes=episodes,
        env_id=None if recorded is None else recorded.id,
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
            hint=NAME_IT,
        )


# --------------------------------------------------------------------------- files of steps


def _columns(columns: Columns, known: KnownEnvironment | None, dones: Dones | None) -> OfflineData:
    """Columns cut into episodes, with what they mean."""
    columns.one_each("rewards")
    ends = episode_ends(columns, dones)
    notes = list(ends.notes)
    if columns.unread:
        notes.append(f"not read: {shown(columns.unread)}")
    space, unknown = columns.observation_space()
    actions, unknown_actions = columns.action_space()
    if known is None:
        notes.append(f"no environment says what the numbers mean: actions are read as {actions}")
        unknown = unknown or unknown_actions
    else:
        space, unknown = known.observation_space, None
    starts = np.concatenate([[0], ends.stops[:-1]])
    lengths = ends.stops - starts
    whole = "next_observations" in columns.found
    kept = lengths if whole else np.where(ends.terminal[ends.stops - 1], lengths, lengths - 1)

    def episodes() -> Iterator[RawEpisode]:
        for start, stop in zip(starts.tolist(), ends.stops.tolist(), strict=True):
            yield _episode(columns, ends, start, stop, space)

    return OfflineData(
        where=columns.where,
        observation_space=space,
        action_space=actions,
        lengths=lengths.astype(np.int64),
        num_rows=int((kept[kept > 0] + 1).sum()),
        episodes=episodes,
        notes=tuple(notes),
        unknown=unknown,
    )


def _episode(
    columns: Columns, ends: Ends, start: int, stop: int, space: spaces.Space
) -> RawEpisode:
    following = columns.found.get("next_observations")
    if following is not None and ends.flagged:
        jumps = np.flatnonzero(~columns.continues(start, stop - 1))
        if len(jumps):
            raise Failure(
                int(jumps[0]),
                "next_observations",
                "is not the observation of the next row: rows are not in the order that they were "
                "played in, or an end is not flagged",
            )
    observations: dict[str, Any] = {}
    for part, values in columns.found["observations"].items():
        observations[part] = np.asarray(values[start:stop])
        if following is not None:
            last = np.asarray(following[part][stop - 1 : stop])
            observations[part] = np.concatenate([observations[part], last])
    expected = named_leaves(space).keys()
    if len(observations) == 1 and expected == {""}:
        observations = {"": observations.popitem()[1]}
    if observations.keys() != expected:
        problem = f"is recorded as {_named(observations.keys())}, expected {_named(expected)}"
        one = f'keep one of them (of a LeRobot data set: data.features = ["{min(observations)}"])'
        raise Failure(0, "observation", problem, one if expected == {""} else None)
    return RawEpisode(
        nested(space, observations),
        np.asarray(columns.found["actions"][""][start:stop]),
        np.asarray(columns.found["rewards"][""][start:stop]),
        ends.terminal[start:stop],
    )


# --------------------------------------------------------------------------- saved replays


def _saved_replay(
    found: dict[str, np.ndarray], where: str, known: KnownEnvironment | None
) -> OfflineData:
    """The episodes of a file that `ReplayBuffer.save` wrote, of every stream `[K, N, ...]`.

    Observations and actions are encoded already.
    """
    columns = plain_columns(found)
    observations = {n.removeprefix(OBS): v for n, v in columns.items() if n.startswith(OBS)}
    missing = [name for name in ("action", "reward", *FLAGS) if name not in columns]
    if missing or not observations:
        raise ConfigurationError(
            f"a saved replay without its columns {', '.join(missing or ['obs'])}", where=where
        )
    spans = _spans(columns["is_first"])

    def episodes() -> Iterator[RawEpisode]:
        for stream, start, stop in spans:
            after = slice(start + 1, stop)  # a reward is in the row of the observation it came with
            yield RawEpisode(
                _one_or_named({name: v[start:stop, stream] for name, v in observations.items()}),
                columns["action"][start : stop - 1, stream],
                columns["reward"][after, stream],
                columns["is_terminal"][after, stream],
            )

    leaves = {name: _space(values) for name, values in observations.items()}
    return OfflineData(
        where=where,
        observation_space=leaves[""] if leaves.keys() == {""} else spaces.Dict(leaves),
        action_space=_space_of_rows(columns["action"], known),
        lengths=np.array([stop - start - 1 for _, start, stop in spans], np.int64),
        num_rows=sum(stop - start for _, start, stop in spans),
        episodes=episodes,
    )


def _spans(is_first: np.ndarray) -> list[tuple[int, int, int]]:
    """Stream, first row and row after the last of each episode of two rows at least."""
    spans = []
    for stream in range(is_first.shape[1]):
        starts = np.union1d([0], np.flatnonzero(is_first[:, stream]))
        stops = np.append(starts[1:], len(is_first))
        spans += [(stream, int(a), int(b)) for a, b in zip(starts, stops, strict=True) if b > a + 1]
    return spans


def _space_of_rows(rows: np.ndarray, known: KnownEnvironment | None) -> spaces.Space:
    """The space of encoded actions: as the environment says, or as they look."""
    width = rows.shape[-1]
    discrete = _is_one_hot(rows)
    if known is not None:
        layout = action_layout(known.env_id, known.action_space)
        if layout.discrete and sum(layout.widths) == width:
            return known.action_space
        discrete &= layout.discrete
    return spaces.Discrete(width) if discrete else spaces.Box(-1.0, 1.0, (width,))


def _is_one_hot(actions: np.ndarray) -> bool:
    """Whether every row is one-hot (or zero, after an episode's last observation)."""
    binary = bool(((actions == 0) | (actions == 1)).all())
    return actions.shape[-1] > 1 and binary and bool((actions.sum(-1) <= 1).all())


def _space(values: np.ndarray) -> spaces.Space:
    shape = values.shape[2:]
    if len(shape) == 3:
        return ImageSpace(shape, 0)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _one_or_named(values: dict[str, Any]) -> Any:
    return values[""] if values.keys() == {""} else values


def _named(parts: Set[str]) -> str:
    """The parts of an observation for a message; "" is the name where there is only one."""
    return "one array" if parts == {""} else f"the parts {shown(parts)}"


def row_count(obs: Any) -> int:
    """Rows of the first part of raw observations, however nested."""
    while isinstance(obs, (Mapping, tuple)):
        obs = next(iter(obs.values() if isinstance(obs, Mapping) else obs), ())
    return len(obs)
