"""Recorded steps in one npz or HDF5 file: columns end to end, as D4RL keeps them.

    observations [N, ...], actions [N, ...], rewards [N], terminals [N]     required
    timeouts [N], next_observations [N, ...]                                optional

Row t holds o_t, the action taken at it, and the reward and ends that it gave. Gymnasium's words
(terminations, truncations) and `dones` are taken too. Named observations stand as
`observations/NAME`. An npz file that `ReplayBuffer.save` wrote is read as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldflux.errors import CheckpointError, ConfigurationError, MissingDependencyError

from .npz_file import read_npz
from .offline import OfflineData, RawEpisode
from .saved_replay import STEPS_WRITTEN, open_saved_replay

Array = NDArray[Any]
Spaces = tuple[spaces.Space, spaces.Space]

MAX_NPZ_BYTES = 64 << 30
_NAMES = {
    "observations": ("observations", "obs"),
    "actions": ("actions",),
    "rewards": ("rewards",),
    "terminals": ("terminals", "terminations", "dones"),
    "timeouts": ("timeouts", "truncations"),
    "next_observations": ("next_observations", "next_obs"),
}
_REQUIRED = ("observations", "actions", "rewards", "terminals")


def open_npz(path: Path, env_spaces: Spaces | None) -> OfflineData:
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
    return _Columns(found, str(path)).open(env_spaces)


def open_hdf5(path: Path, env_spaces: Spaces | None) -> OfflineData:
    """Open the columns of an HDF5 file; observations are read one episode at a time.

    Raises:
        MissingDependencyError: when h5py is not installed.
        ConfigurationError: when the file is missing or damaged, or a column does not fit.
    """
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError(
            "HDF5 files need the package 'h5py', which is not installed",
            hint="pip install 'worldflux[hdf5]'",
        ) from None
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ConfigurationError(f"not an HDF5 file: {error}", where=str(path)) from None
    columns: dict[str, Any] = {}
    _collect(file, "", columns, h5py.Dataset)
    return _Columns(columns, str(path)).open(env_spaces)


def _collect(group: Any, prefix: str, columns: dict[str, Any], kind: type) -> None:
    """Data sets of the file by path; links to other files are not followed."""
    for name in group:
        link = group.get(name, getlink=True)
        if type(link).__name__ != "HardLink":
            continue
        item = group[name]
        if isinstance(item, kind):
            columns[prefix + name] = item
        else:
            _collect(item, f"{prefix}{name}/", columns, kind)


class _Columns:
    """Columns of one file, checked, and cut into episodes."""

    def __init__(self, found: Mapping[str, Any], where: str) -> None:
        self.where = where
        self.columns = {name: _pick(found, names) for name, names in _NAMES.items()}
        missing = [name for name in _REQUIRED if self.columns[name] is None]
        if missing:
            raise ConfigurationError(
                f"columns are missing: {', '.join(missing)}; the file has "
                f"{', '.join(sorted(found)[:20]) or 'none'}",
                where=where,
                hint="needed are observations, actions, rewards and terminals, row by row",
            )
        self._check_lengths()
        self.terminals = self._flags("terminals")
        self.timeouts = self._timeouts()

    def open(self, env_spaces: Spaces | None) -> OfflineData:
        stops = np.flatnonzero(self.terminals | self.timeouts) + 1
        if len(stops) == 0 or stops[-1] < len(self.terminals):
            stops = np.append(stops, len(self.terminals))  # the last episode was cut off
        starts = np.concatenate([[0], stops[:-1]])

        def episodes() -> Iterator[RawEpisode]:
            for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
                yield self._episode(start, stop)

        observation_space, action_space = env_spaces or (
            self._observation_space(),
            self._action_space(),
        )
        return OfflineData(
            where=self.where,
            observation_space=observation_space,
            action_space=action_space,
            lengths=(stops - starts).astype(np.int64),
            last_obs=self.columns["next_observations"] is not None,
            episodes=episodes,
        )

    def _check_lengths(self) -> None:
        rows = {
            name + (f"/{key}" if key else ""): values.shape[0] if values.ndim else 0
            for name, column in self.columns.items()
            for key, values in _leaves(column)
        }
        if len(set(rows.values())) != 1 or 0 in rows.values():
            told = ", ".join(f"{name} {count}" for name, count in rows.items())
            raise ConfigurationError(
                f"every column has one row a step, at least one; here: {told}", where=self.where
            )
        for name, column in self.columns.items():
            for _, values in _leaves(column):
                if values.dtype.kind not in "biuf":
                    raise ConfigurationError(
                        f"column {name!r} holds {values.dtype}, not numbers", where=self.where
                    )

    def _flags(self, name: str) -> NDArray[np.bool_]:
        values = np.asarray(self.columns[name][...])
        if values.size != len(values):
            raise ConfigurationError(
                f"column {name!r} has shape {values.shape}, expected one number a row",
                where=self.where,
            )
        return values.reshape(-1).astype(bool)

    def _timeouts(self) -> NDArray[np.bool_]:
        """Time limits, as recorded; else where the next row does not go on from this one."""
        if self.columns["timeouts"] is not None:
            return self._flags("timeouts")
        jumps = np.zeros(len(self.terminals), bool)
        following = self.columns["next_observations"]
        for key, values in _leaves(self.columns["observations"]):
            if following is not None and values.ndim <= 2:
                after = (following[key] if key else following)[:-1]
                differs = np.asarray(values[1:]) != np.asarray(after)
                jumps[:-1] |= differs.reshape(len(after), -1).any(1)
        return jumps & ~self.terminals

    def _episode(self, start: int, stop: int) -> RawEpisode:
        following = self.columns["next_observations"]

        def rows(key: str, values: Any) -> Array:
            kept = np.asarray(values[start:stop])
            if following is None:
                return kept
            last = (following[key] if key else following)[stop - 1 : stop]
            return np.concatenate([kept, np.asarray(last)])

        observations = {key: rows(key, v) for key, v in _leaves(self.columns["observations"])}
        truncations = self.timeouts[start:stop].copy()
        truncations[-1] |= not self.terminals[stop - 1]
        return RawEpisode(
            observations[""] if observations.keys() == {""} else observations,
            np.asarray(self.columns["actions"][start:stop]),
            np.asarray(self.columns["rewards"][start:stop]),
            self.terminals[start:stop],
            truncations,
        )

    def _observation_space(self) -> spaces.Space:
        leaves = {key: _space_of(v) for key, v in _leaves(self.columns["observations"])}
        return leaves[""] if leaves.keys() == {""} else spaces.Dict(leaves)

    def _action_space(self) -> spaces.Space:
        """Whole numbers are one Discrete action; real ones are taken to lie in [-1, 1]."""
        actions = self.columns["actions"]
        width = int(np.prod(actions.shape[1:]))
        if actions.dtype.kind == "f":
            return spaces.Box(-1.0, 1.0, (width,), np.float32)
        if width != 1:
            raise ConfigurationError(
                f"actions are {width} whole numbers a row; without an environment it is not known "
                "what they stand for",
                where=self.where,
                hint="set environment to the one that the data was recorded in",
            )
        return spaces.Discrete(max(2, int(np.max(actions[...])) + 1))


def _space_of(values: Any) -> spaces.Space:
    shape = tuple(values.shape[1:])
    if values.dtype == np.uint8 and len(shape) == 3:
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _pick(found: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The column under the first of these names; a dict where it is kept as NAME/part."""
    for name in names:
        if name in found:
            return found[name]
        parts = {k.partition("/")[2]: v for k, v in found.items() if k.startswith(f"{name}/")}
        if parts:
            return parts
    return None


def _leaves(column: Any) -> list[tuple[str, Any]]:
    if column is None:
        return []
    return sorted(column.items()) if isinstance(column, dict) else [("", column)]
