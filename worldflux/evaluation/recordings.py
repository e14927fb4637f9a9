"""Recorded episodes on disk: what plays them again, and what shows whether it did.

A file has the seed of each episode, its actions and rewards, and a digest of each observation. The
observations themselves come back when the actions are taken again.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from worldflux.errors import RunFolderError
from worldflux.files import replacing
from worldflux.layout import IMAGINATION

if TYPE_CHECKING:
    from .episodes import RecordedEpisode

SUFFIX = ".npz"
_COLUMNS = ("seed", "index", "actions", "rewards", "digests")


@dataclass(frozen=True)
class StoredEpisode:
    """An episode of environment number `index`: actions `[T, A]`, rewards `[T]`, digests `[T + 1]`.

    `seed` is None where the episode began in the middle of a game, which no seed brings back.
    """

    seed: int | None
    index: int
    actions: np.ndarray
    rewards: np.ndarray
    digests: np.ndarray

    def __len__(self) -> int:
        return len(self.actions)


def recordings(folder: Path) -> dict[str, Path]:
    """The files of recorded episodes of a run folder by name, the newest first."""
    found = (folder / IMAGINATION).glob(f"*{SUFFIX}")
    newest = sorted(found, key=lambda path: (path.stat().st_mtime, path.name), reverse=True)
    return {path.stem: path for path in newest}


def digest_of(obs: Mapping[str, np.ndarray]) -> np.uint64:
    """64 bits that tell one observation, by name, from another."""
    whole = hashlib.blake2b(digest_size=8)
    for name in sorted(obs):
        whole.update(name.encode() + np.ascontiguousarray(obs[name]).tobytes())
    return np.uint64(int.from_bytes(whole.digest(), "little"))


def write_episodes(path: Path, episodes: Sequence[RecordedEpisode]) -> None:
    """Write `path`, an .npz file, for `read_episodes`."""
    columns: dict[str, np.ndarray] = {}
    for number, episode in enumerate(episodes):
        rows = [{n: v[t] for n, v in episode.obs.items()} for t in range(len(episode) + 1)]
        values = (
            np.int64(-1 if episode.seed is None else episode.seed),
            np.int64(episode.index),
            episode.actions,
            episode.rewards,
            np.array([digest_of(row) for row in rows]),
        )
        columns |= {f"{number}/{name}": v for name, v in zip(_COLUMNS, values, strict=True)}  # type: ignore[misc]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, **columns)  # type: ignore[arg-type]


def read_episodes(path: Path) -> list[StoredEpisode]:
    """The episodes of a file that `write_episodes` wrote; RunFolderError for any other."""
    try:
        with np.load(path, allow_pickle=False) as file:
            rows = [
                [file[f"{number}/{name}"] for name in _COLUMNS]
                for number in range(len(file.files) // len(_COLUMNS))
            ]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RunFolderError(f"not a file of recorded episodes: {error}", where=str(path)) from None
    return [
        StoredEpisode(None if seed < 0 else int(seed), int(index), *arrays)
        for seed, index, *arrays in rows
    ]
