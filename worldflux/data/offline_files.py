"""Recorded steps in one npz or HDF5 file: columns end to end, as docs/data.md describes them.

Row t holds o_t, the action taken at it, and the reward and ends that it gave. An npz file that
`ReplayBuffer.save` wrote is read as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces

from worldflux.envs.leaves import leaves, name_of, nested
from worldflux.envs.returned import BadValue
from worldflux.errors import CheckpointError, ConfigurationError
from worldflux.optional import require

from .episode_ends import Dones, Ends, episode_ends
from .npz_file import MAX_NPZ_BYTES, read_npz
from .offline import KnownEnvironment, OfflineData, RawEpisode
from .recorded_columns import Columns, shown
from .replay_file import STEPS_WRITTEN
from .saved_replay import open_saved_replay


def open_npz(path: Path, known: KnownEnvironment | None, dones: Dones | None) -> OfflineData:
    """Open the columns of an npz file (no pickle).

    Raises:
        ConfigurationError: when the file is missing or damaged, or a column does not fit.
    """
    try:
        found = read_npz(path, "an npz file of recorded steps", MAX_NPZ_BYTES)
    except CheckpointError as error:
        raise ConfigurationError(error.message, where=error.where) from None
    if STEPS_WRITTEN in found:
        return open_saved_replay(found, str(path))
    return _opened(Columns(found, str(path)), known, dones)


def open_hdf5(path: Path, known: KnownEnvironment | None, dones: Dones | None) -> OfflineData:
    """Open the columns of an HDF5 file; observations are read one episode at a time.

    Raises:
        MissingDependencyError: when h5py is not installed.
        ConfigurationError: when the file is missing or damaged, or a column does not fit.
    """
    require("an HDF5 file", "hdf5", "h5py")
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigurationError(f"not an HDF5 file: {error}", where=str(path)) from None
    columns: dict[str, Any] = {}
    _collect(file, "", columns, h5py.Dataset)
    return _opened(Columns(columns, str(path)), known, dones)


def _collect(group: Any, prefix: str, columns: dict[str, Any], kind: Any) -> None:
    """Data sets of the file by path; links to other files are not followed."""
    for name in group:
        link = group.get(name, getlink=True)
        if type(link).__name__ != "HardLink":
            continue
        item = group[name]
        if not isinstance(item, kind):
            _collect(item, f"{prefix}{name}/", columns, kind)
        elif item.shape is not None:
            columns[prefix + name] = item


def _opened(columns: Columns, known: KnownEnvironment | None, dones: Dones | None) -> OfflineData:
    """Columns cut into episodes, with what they mean."""
    env_id, limit = (None, None) if known is None else (known.env_id, known.time_limit)
    columns.one_each("rewards")
    ends = episode_ends(columns, dones, env_id, limit)
    notes = list(ends.notes)
    if columns.unread:
        notes.append(f"not read: {shown(columns.unread)}")
    observed, unknown = columns.observation_space()
    acted, unknown_actions = columns.action_space()
    if known is None:
        notes.append(f"no environment says what the numbers mean: actions are read as {acted}")
        unknown = unknown or unknown_actions
    starts = np.concatenate([[0], ends.stops[:-1]])
    lengths = ends.stops - starts
    whole = "next_observations" in columns.found
    kept = lengths if whole else np.where(ends.terminal[ends.stops - 1], lengths, lengths - 1)

    space = observed if known is None else known.observation_space

    def episodes() -> Iterator[RawEpisode]:
        for start, stop in zip(starts.tolist(), ends.stops.tolist(), strict=True):
            yield _episode(columns, ends, start, stop, space)

    return OfflineData(
        where=columns.where,
        observation_space=space,
        action_space=acted if known is None else known.action_space,
        lengths=lengths.astype(np.int64),
        num_rows=int((kept[kept > 0] + 1).sum()),
        episodes=episodes,
        notes=tuple(notes),
        unknown=unknown if known is None else None,
    )


def _episode(
    columns: Columns, ends: Ends, start: int, stop: int, space: spaces.Space
) -> RawEpisode:
    following = columns.found.get("next_observations")
    if following is not None and ends.told:
        jumps = np.flatnonzero(~columns.continues(start, stop - 1))
        if len(jumps):
            raise BadValue(
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
    obs: Any = observations[""] if observations.keys() == {""} else observations
    if observations.keys() == {name_of(path) for path, _ in leaves(space)}:
        obs = nested(space, observations)
    return RawEpisode(
        obs,
        np.asarray(columns.found["actions"][""][start:stop]),
        np.asarray(columns.found["rewards"][""][start:stop]),
        ends.terminal[start:stop],
    )
