"""A file that `ReplayBuffer.save` wrote, read as recorded episodes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from worldflux.errors import ConfigurationError

from .columns import FLAGS, OBS
from .offline import OfflineData, RawEpisode
from .replay_file import plain_columns

Array = NDArray[Any]


def open_saved_replay(found: dict[str, Array], where: str) -> OfflineData:
    """The episodes of every stream `[K, N, ...]`; observations and actions are encoded already.

    Raises:
        ConfigurationError: when a column is missing.
    """
    columns = plain_columns(found)
    observations = {n.removeprefix(OBS): v for n, v in columns.items() if n.startswith(OBS)}
    missing = [name for name in ("action", "reward", *FLAGS) if name not in columns]
    if missing or not observations:
        raise ConfigurationError(
            f"a saved replay without its columns {', '.join(missing or ['obs'])}", where=where
        )
    spans = _spans(columns["is_first"])
    discrete = _is_one_hot(columns["action"])
    actions = columns["action"].argmax(-1) if discrete else columns["action"]
    width = columns["action"].shape[-1]

    def episodes() -> Iterator[RawEpisode]:
        for stream, start, stop in spans:
            kept = slice(start, stop)
            after = slice(start + 1, stop)  # a reward stands beside the observation it came with
            obs = {name: values[kept, stream] for name, values in observations.items()}
            yield RawEpisode(
                obs[""] if obs.keys() == {""} else obs,
                actions[start : stop - 1, stream],
                columns["reward"][after, stream],
                columns["is_terminal"][after, stream],
            )

    leaves = {name: _space(values) for name, values in observations.items()}
    return OfflineData(
        where=where,
        observation_space=leaves[""] if leaves.keys() == {""} else spaces.Dict(leaves),
        action_space=spaces.Discrete(width) if discrete else spaces.Box(-1.0, 1.0, (width,)),
        lengths=np.array([stop - start - 1 for _, start, stop in spans], np.int64),
        num_rows=sum(stop - start for _, start, stop in spans),
        episodes=episodes,
        encoded=True,
    )


def _spans(is_first: Array) -> list[tuple[int, int, int]]:
    """Stream, first row and row after the last of each episode of two rows at least."""
    spans = []
    for stream in range(is_first.shape[1]):
        starts = np.union1d([0], np.flatnonzero(is_first[:, stream]))
        stops = np.append(starts[1:], len(is_first))
        spans += [(stream, int(a), int(b)) for a, b in zip(starts, stops, strict=True) if b > a + 1]
    return spans


def _is_one_hot(actions: Array) -> bool:
    """Whether every row is one-hot (or zero, after an episode's last observation)."""
    binary = bool(((actions == 0) | (actions == 1)).all())
    return actions.shape[-1] > 1 and binary and bool((actions.sum(-1) <= 1).all())


def _space(values: Array) -> spaces.Space:
    shape = values.shape[2:]
    if values.dtype == np.uint8:
        return spaces.Box(0, 255, shape, np.uint8)
    return spaces.Box(-np.inf, np.inf, shape, np.float32)
